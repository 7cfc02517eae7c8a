"""Time from a saved plain BART, or a saved mixture, to a model in memory.

    python benchmarks/start_up.py --model_size base       bart-base sizes with 3 experts, random weights
    python benchmarks/start_up.py                         the embedded BART, a test run of a few seconds

Prints one JSON line; README.md explains it.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from benchmarks.comparing import ratio
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.model.loading import load_routing_bart

NUM_EXPERTS = 3
VARIANTS = ["from_bart", "from_bart_drawing", "load", "to_bart"]


@dataclass(frozen=True)
class Settings:
    model_size: str
    rounds: int
    threads: int
    seed: int
    variants: list[str]
    device: str


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.start_up",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    settings = Settings(**vars(measuring.parse_turns(parser, argv, VARIANTS, rounds=5)))
    settings = dataclasses.replace(settings, device="cpu")  # models are built there
    measuring.prepare(settings)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        bart = measuring.saved_bart(Path(folder) / "bart", settings.model_size, settings.seed)
        calls = make_calls(bart, Path(folder) / "mixture", settings.seed)
        runs = {name: timed(calls[name]) for name in settings.variants}
        variants = measuring.measure(runs, settings.rounds, {})
    ratios = {"from_bart_drawing_over_from_bart": ratio(variants, "from_bart_drawing", "from_bart")}
    measuring.print_report("start_up", settings, load, variants=variants, ratios=ratios)


def make_calls(bart: Path, mixture: Path, seed: int) -> dict[str, Callable[[], object]]:
    def from_bart():
        torch.manual_seed(seed)
        names = [f"task{i}" for i in range(measuring.N_TASKS)]
        return RoutingBartForConditionalGeneration.from_bart(bart, NUM_EXPERTS, task_names=names)

    def from_bart_drawing():  # every weight, before those of the BART replace it
        with patch("routing_moe.model.conversion.unfilled_model", lambda cls, config: cls(config)):
            return from_bart()

    model = from_bart()
    model.save_pretrained(mixture)
    route_LE = measuring.one_hot_routes(model, 1)[0]
    return {
        "from_bart": from_bart,
        "from_bart_drawing": from_bart_drawing,
        "load": lambda: load_routing_bart(RoutingBartForConditionalGeneration, mixture),
        "to_bart": lambda: model.to_bart(route_LE),
    }


def timed(call: Callable[[], object]) -> Callable[[], dict[str, float]]:
    def run() -> dict[str, float]:
        start, cpu_start = time.perf_counter(), time.process_time()
        call()
        return {"s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu_start}

    return run


if __name__ == "__main__":
    main()
