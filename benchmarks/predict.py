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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from benchmarks.measuring import MEASURED, ratio
from routing_moe.config.flags import AT_LEAST_1
from routing_moe.model.beams import generate_plain

# one_hot: all examples of one task; one_hot_mixed: each of a different task; soft: one cache per expert;
# lora_soft: all examples of one task, with low-rank experts, merging included; plain_shared: plain BART whose
# beams share encoder states, as those of all variants except plain.
VARIANTS = ("one_hot", "one_hot_mixed", "soft", "soft_no_cache", "lora_soft", "plain_shared", "plain")


@dataclass(frozen=True, kw_only=True)
class Settings(measuring.RandomModelSettings):
    program = "python -m benchmarks.predict"
    variants: tuple[str, ...] = MEASURED(VARIANTS, "variants to measure", choices=VARIANTS, metavar="VARIANT")
    new_tokens: int = MEASURED(16, "exact number of new tokens", range=AT_LEAST_1)
    lora_rank: int = MEASURED(16, "rank of the experts of lora_soft", range=AT_LEAST_1)
    num_beams: int = MEASURED(4, "beams per example", range=AT_LEAST_1)


def main(argv: list[str] | None = None) -> int:
    return measuring.run_benchmark(run, Settings, argv, __doc__)


def run(settings: Settings) -> dict:
    model = measuring.build_routing_model(settings, settings.num_experts).eval()
    plain = model.to_bart(measuring.one_hot_routes(model, 1)[0])  # built before timing starts
    models = {}
    if "lora_soft" in settings.variants:
        models["lora_soft"] = measuring.with_low_rank_experts(plain, settings, trains_base=False).eval()
    calls = {name: make_call(name, models.get(name, model), plain, settings) for name in settings.variants}
    variants = measuring.measure(calls, settings.steps)
    pairs = [("one_hot", "plain"), ("one_hot_mixed", "plain"), ("soft", "plain"), ("soft_no_cache", "soft")]
    pairs += [("lora_soft", "plain"), ("lora_soft", "plain_shared")]
    ratios = {f"{over}_over_{under}": ratio(variants, over, under) for over, under in pairs}
    return {"variants": variants, "ratios": ratios}


def make_call(name: str, model, plain, settings: Settings) -> Callable[[], dict[str, float]]:
    """Returns a function that generates once, on inputs that are drawn here, and returns its seconds."""
    B, device = settings.batch_size, settings.device
    inputs = measuring.random_source(B, settings.source_length, model.config.vocab_size, device)
    inputs |= {"num_beams": settings.num_beams, "min_new_tokens": settings.new_tokens}
    inputs |= {"max_new_tokens": settings.new_tokens, "use_cache": name != "soft_no_cache"}
    if name == "one_hot":
        inputs["routes"] = measuring.one_hot_routes(model, 1).expand(B, -1, -1)
    elif name == "one_hot_mixed":
        inputs["routes"] = measuring.one_hot_routes(model, B)
    elif name == "lora_soft":
        size = (model.config.num_layers, model.config.num_experts)
        inputs["routes"] = torch.randn(size, device=device).softmax(-1).expand(B, -1, -1)
    elif not name.startswith("plain"):
        size = (B, model.config.num_layers, model.config.num_experts)
        inputs["routes"] = torch.randn(size, device=device).softmax(-1)
    generate = plain.generate if name == "plain" else model.generate
    if name == "plain_shared":
        generate = partial(generate_plain, plain)

    def call() -> dict[str, float]:
        start = measuring.now(device)
        with measuring.autocast(settings):
            sequences = generate(**inputs)
        end = measuring.now(device)
        if sequences.shape != (B, 1 + settings.new_tokens):
            raise RuntimeError(
                f"{name}: sequences of shape {tuple(sequences.shape)}, expected "
                f"{(B, 1 + settings.new_tokens)}; times cannot be compared"
            )
        return {"s": end - start}

    return call


if __name__ == "__main__":
    sys.exit(main())
