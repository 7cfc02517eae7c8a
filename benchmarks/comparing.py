"""Ratios of the seconds that train_step.py measured; pure functions.

All times are relative to plain BART in the same rounds, so that a machine that becomes slower during the
benchmark does not change the ratios. Measured fields are seconds: `forward_s`, `forward_backward_s`,
`median_s` (of whole steps). E: experts per layer.
"""

import statistics

FIELDS = {"forward_backward": "forward_backward_s", "step": "median_s"}
# Merged parameters of the experts against mixed outputs, with the same weights.
MERGED_AND_DENSE = [
    ("merged_average", "average"),
    ("merged_softmax", "softmax"),
    ("merged_softmax_one_task", "softmax"),
]


def plain_of(name: str) -> str:
    """Returns the name of the plain variant with the same batch shape."""
    return "plain_second" if name.endswith("_second") else "plain"


def is_routed(name: str) -> bool:
    """Returns whether the time of a variant depends on E."""
    return name not in ("plain", "plain_second", "one_expert")


def ratio(variants: dict, over: str, under: str, field: str = "median_s") -> float | None:
    """Returns variants[over][field] / variants[under][field], or None if one was not run."""
    if over not in variants or under not in variants:
        return None
    return variants[over][field] / variants[under][field]


def ratios_of(variants: dict[str, dict[str, float]]) -> dict[str, float | None]:
    """Returns ratios of the variants at one E.

    Every variant over plain BART, merged parameters over mixed outputs, the slow path of straight-through
    over its fast path.
    """
    pairs = [(name, plain_of(name)) for name in variants if name != plain_of(name)] + MERGED_AND_DENSE
    ratios = {
        f"{over}_over_{under}_{name}": ratio(variants, over, under, field)
        for over, under in pairs
        for name, field in FIELDS.items()
    }
    slow_over_fast = ratio(variants, "straight_through_slow", "straight_through")
    return ratios | {"straight_through_slow_over_fast_step": slow_over_fast}


def across_experts(measured: dict[int, dict[str, dict[str, float]]]) -> dict[str, float]:
    """Returns how the time of each variant changes with E; {} for a single E, or without plain BART.

    measured: {E: {variant: seconds by field}}. For each variant X:
    X_flatness: forward and backward relative to plain BART's, at the largest E divided by that at the
    smallest; X_growth: what one more expert adds to forward and backward, in plain forward passes (least
    squares); X_backward_growth: the part of X_growth in the backward pass.
    """
    if len(measured) < 2:
        return {}
    found = {}
    for name in filter(is_routed, measured[min(measured)]):
        if plain_of(name) in measured[min(measured)]:
            both = {
                E: ratio(variants, name, plain_of(name), "forward_backward_s")
                for E, variants in measured.items()
            }
            found[f"{name}_flatness"] = both[max(measured)] / both[min(measured)]
            found[f"{name}_growth"] = growth(measured, name, lambda of: of["forward_backward_s"])
            found[f"{name}_backward_growth"] = growth(
                measured, name, lambda of: of["forward_backward_s"] - of["forward_s"]
            )
    return found


def growth(measured: dict, name: str, seconds_of) -> float:
    """Returns the least-squares slope over E of a variant's seconds, in units of one plain forward pass."""
    passes = [
        seconds_of(variants[name]) / variants[plain_of(name)]["forward_s"] for variants in measured.values()
    ]
    return statistics.linear_regression(list(measured), passes).slope


def markdown_table(measured: dict[int, dict[str, dict[str, float]]]) -> str:
    """Returns a Markdown table of variants by E: ratios to plain BART; its own row has seconds.

    Cells: forward and backward / whole step (share of the optimizer in the step).
    """
    lines = ["| over plain: forward and backward / step (optimizer's share) |", "|---|"]
    names = list(measured[min(measured)])
    lines += [f"| `{name}`{', seconds' if name == plain_of(name) else ''} |" for name in names]
    for E, variants in measured.items():
        column = [f" E = {E} |", "---:|", *(f" {cell(variants, name)} |" for name in names)]
        lines = [line + more for line, more in zip(lines, column, strict=True)]
    return "\n".join(lines)


def cell(variants: dict[str, dict[str, float]], name: str) -> str:
    share = f" ({variants[name]['optimizer_share']:.0%})"
    if name == plain_of(name):
        return " / ".join(f"{variants[name][field]:.3g}" for field in FIELDS.values()) + share
    found = [ratio(variants, name, plain_of(name), field) for field in FIELDS.values()]
    return " / ".join("-" if value is None else f"{value:.2f}" for value in found) + share
