"""Time and decoding steps of an evaluation: all files together, one after the other, beams without sharing.

    python benchmarks/evaluation.py --train_dir ../shared/gym                  the dev files of a gym
    python benchmarks/evaluation.py --train_dir ../shared/gym --answers longest --num_beams 1
    python benchmarks/evaluation.py --tasks 2 --examples 4 --rounds 1          a test run

Weights are random, nothing is downloaded; without --train_dir the files are those of the embedded gym's
unseen tasks. A model with random weights ends no answer. Answers get the length of the longest accepted
answer of their batch, as those of a trained model, or with --answers longest always --max_output_length.
Prints one JSON line; README.md explains it.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from transformers import AutoTokenizer
from transformers.models.bart.modeling_bart import BartDecoder

from benchmarks import measuring
from benchmarks.comparing import ratio
from benchmarks.task_vectors import UNSEEN, write_gym
from dataloader.encoding import TextFormat
from dataloader.gym import Gym
from dataloader.task_splits import load_split
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.evaluation import scoring
from routing_moe.evaluation.scored_files import Decoding, TaskFile, load_task_files
from routing_moe.io.accelerator import make_accelerator
from task.skill_gym import TINY_BART
from task.skill_gym.tasks import metric_table

KINDS = {"soft": "softmax", "one_hot": "gumbel_softmax_st", "one_expert": "softmax"}
WAYS = ("", "_by_file", "_by_file_unshared")
VARIANTS = [kind + way for kind in KINDS for way in WAYS]


@dataclass(frozen=True)
class Settings:
    model_size: str
    train_dir: str | None
    custom_tasks_splits: str | None
    tasks: int | None
    samples: str
    examples: int | None
    answers: str
    num_experts: int
    num_beams: int
    max_output_length: int
    predict_batch_size: int | None
    rounds: int
    variants: list[str] | None
    threads: int
    seed: int
    device: str


def main(argv: list[str] | None = None) -> None:
    settings = parse_settings(argv)
    measuring.prepare(settings)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        calls = evaluations(Path(name), settings)
        variants = measuring.measure(calls, settings.rounds, {})
    ratios = {
        f"{kind}{way}_over_{kind}_{field}": ratio(variants, kind + way, kind, field)
        for kind in KINDS
        for way in WAYS[1:]
        for field in ("median_s", "cpu_s", "decoding_steps")
    }
    measuring.print_report("evaluation", settings, load, variants=variants, ratios=ratios)


def evaluations(folder: Path, settings: Settings) -> dict[str, Callable[[], dict[str, float]]]:
    """Returns {variant: function that answers all dev files once, and returns seconds and steps}."""
    tokenizer = AutoTokenizer.from_pretrained(TINY_BART)
    files = dev_files(folder, tokenizer, settings)
    bart = str(measuring.saved_bart(folder / "bart", settings.model_size, settings.seed))
    models = {}
    for kind in {name.split("_by_file")[0] for name in settings.variants}:
        torch.manual_seed(settings.seed)
        model = RoutingBartForConditionalGeneration.from_bart(
            bart,
            1 if kind == "one_expert" else settings.num_experts,
            init_eps=0.02,
            task_names=sorted({file.task for file in files}),
            router_mode=KINDS[kind],
        )
        model.final_logits_bias[0, tokenizer.eos_token_id] = -1e9  # no answer ends early
        models[kind] = model.to(settings.device)
    decoding = Decoding(
        num_beams=settings.num_beams,
        max_output_length=settings.max_output_length,
        batch_size=settings.predict_batch_size,
    )
    accelerator = make_accelerator()

    def call(name: str) -> Callable[[], dict[str, float]]:
        kind = name.split("_by_file")[0]
        parts = [files] if name == kind else [[file] for file in files]
        beams = unshared_beams if name.endswith("_unshared") else nullcontext
        lengths = accepted_lengths if settings.answers == "accepted" else nullcontext

        def run() -> dict[str, float]:
            start, began = measuring.now(settings.device), time.process_time()
            with counted_steps() as steps, beams(), lengths():
                for part in parts:
                    scoring.answer(models[kind], tokenizer, part, decoding, accelerator)
            seconds = measuring.now(settings.device) - start
            return {"s": seconds, "cpu_s": time.process_time() - began, "decoding_steps": len(steps)}

        return run

    return {name: call(name) for name in settings.variants}


def dev_files(folder: Path, tokenizer, settings: Settings) -> list[TaskFile]:
    """Returns the tokenized dev files of the gym's train tasks, or of the embedded gym's unseen tasks."""
    if settings.train_dir:
        split = settings.custom_tasks_splits or Path(settings.train_dir) / "split.json"
        gym, tasks = Gym(settings.train_dir), list(load_split(split).train)
    else:
        path = write_gym(folder / "gym", len(UNSEEN), settings.seed)
        (path / "metrics.json").write_text(json.dumps(metric_table()))
        gym, tasks = Gym(path), [task.name for task in UNSEEN]
    tasks = sorted(tasks)[: settings.tasks]
    texts = TextFormat(max_output_length=settings.max_output_length)
    ids = {name: row for row, name in enumerate(tasks)}
    return load_task_files(
        gym, tasks, "dev", settings.samples, tokenizer, texts, ids, limit=settings.examples
    )


@contextmanager
def counted_steps() -> Iterator[list]:
    """Yields a list to which every forward pass of a decoder adds an item."""
    steps, forward = [], BartDecoder.forward

    def counting(self, *args, **kwargs):
        steps.append(1)
        return forward(self, *args, **kwargs)

    with mock.patch.object(BartDecoder, "forward", counting):
        yield steps


@contextmanager
def unshared_beams() -> Iterator[None]:
    """In this context, each beam has its own copy of the encoder's states, as in transformers."""

    @contextmanager
    def unchanged(bart, inputs, kwargs, cache_name, along=dict):
        yield kwargs

    with mock.patch("routing_moe.model.modeling.beams_share_sources", unchanged):
        yield


@contextmanager
def accepted_lengths() -> Iterator[None]:
    """In this context, a batch's answers have the length of its longest accepted answer."""
    generate = scoring._generate

    def shorter(bart, tokenizer, pool, indices, routes, decoding, accelerator):
        longest = int(pool.encoded.target_lengths_N[indices].max())
        limited = replace(decoding, max_output_length=longest)
        return generate(bart, tokenizer, pool, indices, routes, limited, accelerator)

    with mock.patch.object(scoring, "_generate", shorter):
        yield


def parse_settings(argv: list[str] | None) -> Settings:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluation",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("--train_dir", help="gym folder (default: the embedded gym)")
    add("--custom_tasks_splits", help="split file (default: split.json in --train_dir)")
    add("--tasks", type=int, help="number of tasks (default: all)")
    add("--samples", choices=("first", "all"), default="first", help="of the tasks (default first)")
    add("--examples", type=int, help="examples of each file (default: all)")
    add("--answers", choices=("accepted", "longest"), default="accepted", help="lengths (default accepted)")
    add("--num_experts", type=int, default=3, help="experts per layer (default 3)")
    add("--num_beams", type=int, default=4, help="beams (default 4)")
    add("--max_output_length", type=int, default=64, help="tokens (default 64)")
    add("--predict_batch_size", type=int, help="as for train (default: that of train)")
    args = measuring.parse_turns(parser, argv, VARIANTS, rounds=3)
    return Settings(**vars(args))


if __name__ == "__main__":
    main()
