"""Time and memory of beam generation for all types of routes, compared with a plain BART of the same size.

    python benchmarks/predict.py                                          bart-base sizes on this CPU
    python benchmarks/predict.py --device cuda --model_size large --batch_size 32 --steps 20
    python benchmarks/predict.py --model_size tiny --steps 2              a test run of a few seconds

Weights are random, nothing is downloaded. Prints one JSON line; README.md explains it.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from benchmarks.measuring import MEASURED
from routing_moe.config.flags import AT_LEAST_1
from routing_moe.model.beams import generate_plain

# one_hot: all examples of one task; one_hot_mixed: each of a different task; soft: one cache per expert;
# lora_soft: all examples of one task, with low-rank experts, merging included; plain_shared: plain BART whose
# beams share encoder states, as those of all variants except plain.
VARIANTS = ("one_hot", "one_hot_mixed", "soft", "soft_no_cache", "lora_soft", "plain_shared", "plain")
OF_ONE_TASK = ("one_hot", "lora_soft")
PAIRS = [(name, "plain") for name in ("one_hot", "one_hot_mixed", "soft", "lora_soft")]
PAIRS += [("soft_no_cache", "soft"), ("lora_soft", "plain_shared")]


@dataclass(frozen=True, kw_only=True)
class PredictSettings(measuring.RandomModelSettings):
    program = "python -m benchmarks.predict"
    variants: tuple[str, ...] = MEASURED(VARIANTS, "variants to measure", choices=VARIANTS, metavar="VARIANT")
    new_tokens: int = MEASURED(16, "exact number of new tokens", range=AT_LEAST_1)
    num_beams: int = MEASURED(4, "beams per example", range=AT_LEAST_1)


def main(argv: list[str] | None = None) -> int:
    return measuring.run_benchmark(run, PredictSettings, argv, __doc__)


def run(settings: PredictSettings) -> dict:
    model = measuring.random_model(settings, settings.num_experts).eval()
    plain = model.to_bart(measuring.one_hot_routes(model, 1)[0])  # built before timing starts
    lora = dict(expert_kind="lora", lora_rank=settings.lora_rank)
    models = dict.fromkeys(settings.variants, model)
    if "lora_soft" in models:
        models["lora_soft"] = measuring.random_model(settings, settings.num_experts, **lora).eval()
    calls = {name: make_call(name, models[name], plain, settings) for name in models}
    calls = {name: measuring.timed(call, settings.device) for name, call in calls.items()}
    variants = measuring.measure(calls, settings.steps)
    return {"variants": variants, "ratios": measuring.ratios(variants, PAIRS, {"": "median_s"})}


def make_call(name: str, model, plain, settings: PredictSettings) -> Callable[[], None]:
    """Returns a function that generates once, on inputs that are drawn here."""
    B, tokens = settings.batch_size, settings.new_tokens
    inputs = measuring.random_source(B, settings.source_length, plain.config.vocab_size, settings.device)
    inputs |= {"num_beams": settings.num_beams, "min_new_tokens": tokens, "max_new_tokens": tokens}
    inputs["use_cache"] = name != "soft_no_cache"
    if not name.startswith("plain"):
        routes = measuring.one_hot_routes if name.startswith("one_hot") else soft_routes
        inputs["routes"] = routes(model, 1 if name in OF_ONE_TASK else B).expand(B, -1, -1)
    ways = {"plain": plain.generate, "plain_shared": partial(generate_plain, plain)}
    generate = ways.get(name, model.generate)

    def call() -> None:
        with measuring.autocast(settings):
            sequences = generate(**inputs)
        size, expected = tuple(sequences.shape), (B, 1 + tokens)
        if size != expected:
            raise RuntimeError(f"{name}: answers of size {size}, not {expected}; times cannot be compared")

    return call


def soft_routes(model, batch_size: int) -> Tensor:
    """Returns random soft routes (B, L, E)."""
    size = (batch_size, model.config.num_layers, model.config.num_experts)
    return torch.randn(size, device=model.device).softmax(-1)


if __name__ == "__main__":
    sys.exit(main())
