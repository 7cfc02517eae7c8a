"""Time and memory of beam generation for all types of routes, compared with a plain BART of the same size.

    python benchmarks/predict.py                                          bart-base sizes on this CPU
    python benchmarks/predict.py --device cuda --model_size large --batch_size 32 --steps 20
    python benchmarks/predict.py --model_size tiny --steps 2              a test run of a few seconds

Weights are random, nothing is downloaded. Prints one JSON line; README.md explains it.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from benchmarks.comparing import ratio

# one_hot: all examples of one task; one_hot_mixed: each of a different task; soft: one cache per expert.
VARIANTS = ["one_hot", "one_hot_mixed", "soft", "soft_no_cache", "plain"]


@dataclass(frozen=True)
class Settings:
    model_size: str
    num_experts: int
    batch_size: int
    source_length: int
    new_tokens: int
    num_beams: int
    steps: int
    variants: list[str] | None
    device: str
    mixed_precision: str
    threads: int
    seed: int
    no_memory: bool
    memory_of: str


def main(argv: list[str] | None = None) -> None:
    settings = parse_settings(argv)
    measuring.prepare(settings)
    if settings.memory_of:
        print(peak_memory_gb(settings))
        return
    memory = measuring.memory_in_fresh_processes(__file__, settings)
    load = os.getloadavg()[0]
    model = measuring.build_routing_model(settings, settings.num_experts).eval()
    plain = model.to_bart(measuring.one_hot_routes(model, 1)[0])  # built before timing starts
    calls = {name: make_call(name, model, plain, settings) for name in settings.variants}
    variants = measuring.measure(calls, settings.steps, memory)
    ratios = {
        "one_hot_over_plain": ratio(variants, "one_hot", "plain"),
        "one_hot_mixed_over_plain": ratio(variants, "one_hot_mixed", "plain"),
        "soft_over_plain": ratio(variants, "soft", "plain"),
        "soft_no_cache_over_soft": ratio(variants, "soft_no_cache", "soft"),
    }
    measuring.print_report("predict", settings, load, variants=variants, ratios=ratios)


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
    elif name != "plain":
        size = (B, model.config.num_layers, model.config.num_experts)
        inputs["routes"] = torch.randn(size, device=device).softmax(-1)
    generate = plain.generate if name == "plain" else model.generate

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


def peak_memory_gb(settings: Settings) -> float:
    """Returns peak memory of this process after it has generated once with one variant, in GB."""
    if settings.memory_of == "plain":
        model = measuring.build_plain_model(settings)
    else:
        model = measuring.build_routing_model(settings, settings.num_experts)
    make_call(settings.memory_of, model.eval(), model, settings)()
    return measuring.own_peak_memory_gb(settings.device)


def parse_settings(argv: list[str] | None) -> Settings:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.predict",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    measuring.add_common_arguments(parser)
    parser.add_argument("--num_experts", type=int, default=3, help="experts per layer (default 3)")
    parser.add_argument("--batch_size", type=int, default=4, help="examples in a batch (default 4)")
    parser.add_argument("--source_length", type=int, default=128, help="source tokens (default 128)")
    parser.add_argument("--new_tokens", type=int, default=16, help="exact number of new tokens (default 16)")
    parser.add_argument("--num_beams", type=int, default=4, help="beams per example (default 4)")
    parser.add_argument("--steps", type=int, default=7, help="rounds; each runs every variant (default 7)")
    parser.add_argument("--variants", nargs="+", help=f"default: all of {' '.join(VARIANTS)}")
    args = parser.parse_args(argv)
    measuring.check_precision(parser, args)
    args.variants = measuring.chosen_variants(parser, args.variants, VARIANTS)
    measuring.check_memory(parser, args, args.num_experts, 4, "the weights")
    return Settings(**vars(args))


if __name__ == "__main__":
    main()
