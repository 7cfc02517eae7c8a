"""Seconds per task of text and Fisher vectors: examples in batches compared with one at a time.

    python benchmarks/task_vectors.py                                 the embedded tiny BART on this CPU
    python benchmarks/task_vectors.py --model_size base --tasks 2 --examples 16 --rounds 3
    python benchmarks/task_vectors.py --tasks 1 --examples 4 --total_steps 1 --rounds 1      a test run

Tasks are those of the embedded gym. Models of other sizes than the embedded BART have random weights, nothing
is downloaded. Prints one JSON line; README.md explains it.
"""

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from benchmarks.comparing import ratio
from task.skill_gym.generate import task_files, write_rows
from task.skill_gym.tasks import TASKS
from task.task_emb.extractors import TextExtractor
from task.task_emb.fisher import FisherSettings
from task.task_emb.fisher_extractor import FisherExtractor
from task.task_emb.text import TextSettings

UNSEEN = [task for task in TASKS if task.split == "test"]  # of all skills, and of many formats
ONE_BY_ONE = "_one_by_one"
# text: a text vector; fisher_training: training the adapters; fisher, fisher_layers: Fisher information of
# the adapters, of all weights of the layers.
VARIANTS = ["text", "text_one_by_one", "fisher_training", "fisher", "fisher_one_by_one", "fisher_layers",
            "fisher_layers_one_by_one"]  # fmt: skip


@dataclass(frozen=True)
class Settings:
    model_size: str
    tasks: int
    examples: int
    total_steps: int
    max_tokens_per_micro_batch: int
    rounds: int
    variants: list[str] | None
    threads: int
    seed: int
    device: str


def main(argv: list[str] | None = None) -> None:
    settings = parse_settings(argv)
    measuring.prepare(settings)
    load = os.getloadavg()[0]
    tasks = [task.name for task in UNSEEN[: settings.tasks]]
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: of_tasks(run, tasks, settings) for name, run in make_runs(Path(folder), settings).items()
        }
        variants = measuring.measure(runs, settings.rounds, {})
    ratios = {
        f"{name}_over_{name.removesuffix(ONE_BY_ONE)}": ratio(variants, name, name.removesuffix(ONE_BY_ONE))
        for name in variants
        if name.endswith(ONE_BY_ONE)
    }
    measuring.print_report("task_vectors", settings, load, variants=variants, ratios=ratios)


def of_tasks(run: Callable[[str], object], tasks: list[str], settings: Settings):
    """Returns a function that runs all tasks and returns the mean seconds per task."""

    def call() -> dict[str, float]:
        seconds = []
        for task in tasks:
            start = measuring.now(settings.device)
            run(task)
            seconds.append(measuring.now(settings.device) - start)
        return {"s": statistics.mean(seconds)}

    return call


def make_runs(folder: Path, settings: Settings) -> dict[str, Callable[[str], object]]:
    """Returns {variant: function of a task}, with the extractors that the commands use."""
    common = dict(
        output_dir=str(folder / "unused"),
        train_dir=str(write_gym(folder / "gym", settings.tasks, settings.seed)),
        model=str(measuring.saved_bart(folder / "bart", settings.model_size, settings.seed)),
        samples="all",
        max_examples=settings.examples,
        max_input_length=128,
        max_output_length=32,
        max_tokens_per_micro_batch=settings.max_tokens_per_micro_batch,
    )
    text = TextExtractor(TextSettings(**common))
    alone = TextExtractor(dataclasses.replace(text.settings, max_tokens_per_micro_batch=1))
    runs = {"text": text.vector_of, "text_one_by_one": alone.vector_of}
    for name, weights in (("fisher", "adapters"), ("fisher_layers", "layers")):
        if not any(variant.startswith(name) for variant in settings.variants):
            continue
        fisher = FisherExtractor(FisherSettings(**common, weights=weights, total_steps=settings.total_steps))
        alone = FisherExtractor(dataclasses.replace(fisher.settings, max_tokens_per_micro_batch=1))
        runs[name], runs[name + ONE_BY_ONE] = fisher.fisher_of, alone.fisher_of
        if weights == "adapters":
            runs["fisher_training"] = lambda task, fisher=fisher: fisher.train_on(task, fisher.encoded(task))
    return {name: runs[name] for name in settings.variants}


def write_gym(folder: Path, tasks: int, seed: int) -> Path:
    """Writes a gym folder with the first `tasks` unseen tasks of the embedded gym."""
    for task in UNSEEN[:tasks]:
        (folder / task.name).mkdir(parents=True)
        for name, rows in task_files(task, seed).items():
            write_rows(folder / task.name / name, rows)
    return folder


def parse_settings(argv: list[str] | None) -> Settings:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.task_vectors",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("--tasks", type=int, choices=range(1, len(UNSEEN) + 1), default=4, help="number of tasks (default 4)")
    add("--examples", type=int, default=160, help="examples per task, at most 160 (default 160)")
    add("--total_steps", type=int, default=100, help="steps of fisher_training (default 100)")
    add("--max_tokens_per_micro_batch", type=int, default=16384, help="padded tokens (default 16384)")
    args = measuring.parse_turns(parser, argv, VARIANTS, rounds=5)
    return Settings(**vars(args))


if __name__ == "__main__":
    main()
