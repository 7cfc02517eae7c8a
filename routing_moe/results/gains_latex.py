"""The table of gains as LaTeX for a paper. It needs the package booktabs only.

Written by hand: pandas' Styler.to_latex has no rules below column groups or above the averages, and no cell
that spans the two columns of a system.
"""

from collections.abc import Callable

import pandas as pd

from routing_moe.results.contrasts import shown_number
from routing_moe.results.gains import (
    MARK,
    shown_arg,
    shown_gain,
    shown_mean_difference,
    shown_task_gain,
    with_most_seeds,
)
from routing_moe.results.markdown import shown_p

LONG = 36  # rows: longer tables, and wider ones, have a smaller font
WIDE = 2  # systems
ESCAPES = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", MARK: r"$\dagger$",
})  # fmt: skip


def escaped(text: str) -> str:
    """Returns the text with LaTeX's special characters escaped."""
    return text.translate(ESCAPES)


def gains_latex(
    per_task: pd.DataFrame,
    per_system: pd.DataFrame,
    baseline: str,
    explained: list[str],
    lower_is_better: bool = False,
) -> str:
    """Returns a table environment with `gains.gains_per_task` row by row and `gains.gains_per_system` below.

    The best score of each task is bold. explained: the caption.
    """
    best = min if lower_is_better else max
    systems = list(per_system["system"])
    body = [_task_row(task, group, best) for task, group in per_task.groupby("task", sort=False)]
    size = r"\scriptsize" if len(body) > LONG or len(systems) > WIDE else r"\small"
    spans = "".join(rf"\cmidrule(lr){{{3 + 2 * i}-{4 + 2 * i}}}" for i in range(len(systems)))
    heads = [rf"\multicolumn{{2}}{{c}}{{{escaped(name)}}}" for name in systems]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        size,
        rf"\caption{{{escaped(' '.join(explained))}}}",
        rf"\begin{{tabular}}{{lr{'rr' * len(systems)}}}",
        r"\toprule",
        _row("", escaped(baseline), *heads),
        spans,
        _row("task", "score", *["score", "gain"] * len(systems)),
        r"\midrule",
        *body,
        r"\midrule",
        *_averages(per_system),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return " & ".join(cells) + r" \\"


def _task_row(task: str, group: pd.DataFrame, best_of: Callable) -> str:
    first = with_most_seeds(group)
    best = best_of([first["baseline"], *group["score"]])
    cells = [_score(first["baseline"], first["baseline_std"], best)]
    for row in group.itertuples():
        cells += [_score(row.score, row.std, best), _signed(shown_task_gain(row))]
    return _row(escaped(str(task)), *cells)


def _score(mean: float, std: float, best: float) -> str:
    shown = f"{mean:.3f}"
    shown = rf"\textbf{{{shown}}}" if round(best - mean, 12) == 0 else shown
    return shown if pd.isna(std) else rf"{shown} {{\tiny $\pm$ {std:.3f}}}"


def _signed(text: str) -> str:
    """Returns escaped numbers with minus signs instead of hyphens."""
    return escaped(text).replace("-", "$-$")


def _averages(per_system: pd.DataFrame) -> list[str]:
    """Returns the rows below the tasks: mean scores, then values per system that span two columns."""
    rows = list(per_system.itertuples())
    n = rows[0].n
    first = with_most_seeds(per_system)
    means = [cell for row in rows for cell in (f"{row.score:.3f}", "")]
    spanning = {
        f"ARG ({n - first['excluded']} tasks)": [shown_arg(row) for row in rows],
        "median gain": [shown_gain(row.median) for row in rows],
        "wins / losses / ties": [f"{row.wins} / {row.losses} / {row.ties}" for row in rows],
        "difference": [shown_mean_difference(row) for row in rows],
        "detectable": [shown_number(row.detectable) for row in rows],
        "p": [shown_p(row.p) for row in rows],
        "p (Holm)": [shown_p(row.p_holm) for row in rows],
    }
    lines = [_row(f"mean ({n} tasks)", f"{first['baseline']:.3f}", *means)]
    for name, cells in spanning.items():
        lines.append(_row(name, "", *(rf"\multicolumn{{2}}{{c}}{{{_signed(cell)}}}" for cell in cells)))
    return lines
