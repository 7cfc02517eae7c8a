"""Time and decoding steps of an evaluation: the dev files of many tasks together, or one after the other.

    python benchmarks/evaluation.py --train_dir ../shared/gym          the dev files of a gym
    python benchmarks/evaluation.py --tasks 2 --examples 4 --rounds 1  a test run

Weights are random, nothing is downloaded; without --train_dir the files are those of the embedded gym's
unseen tasks. A model with random weights ends no answer: all answers have --max_output_length tokens. Prints
one JSON line; README.md explains it.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from transformers import AutoTokenizer
from transformers.models.bart.modeling_bart import BartDecoder

from benchmarks import measuring
from benchmarks.measuring import MEASURED, ratio
from dataloader.encoding import TextFormat
from dataloader.gym import Gym
from dataloader.task_splits import load_split
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.config.flags import AT_LEAST_1
from routing_moe.evaluation import scoring
from routing_moe.evaluation.scored_files import Decoding, TaskFile, load_task_files
from routing_moe.io.accelerator import make_accelerator
from task.skill_gym import TINY_BART
from task.skill_gym.tasks import TASKS

UNSEEN = [task for task in TASKS if task.split == "test"]  # of all skills, and of many formats
KINDS = {"soft": "softmax", "one_hot": "gumbel_softmax_st", "one_expert": "softmax"}
BY_FILE = "_by_file"
VARIANTS = tuple(kind + end for kind in KINDS for end in ("", BY_FILE))


@dataclass(frozen=True, kw_only=True)
class Settings(measuring.SavedModelSettings):
    program = "python -m benchmarks.evaluation"
    variants: tuple[str, ...] = MEASURED(VARIANTS, "variants to measure", choices=VARIANTS, metavar="VARIANT")
    train_dir: str | None = MEASURED(None, "gym folder (default: the embedded gym)")
    custom_tasks_splits: str | None = MEASURED(None, "split file (default: split.json in --train_dir)")
    tasks: int | None = MEASURED(None, "number of tasks (default: all)", range=AT_LEAST_1)
    samples: str = MEASURED("first", "samples of the tasks", choices=("first", "all"))
    examples: int | None = MEASURED(None, "examples of each file (default: all)", range=AT_LEAST_1)
    num_experts: int = MEASURED(3, "experts per layer", range=AT_LEAST_1)
    num_beams: int = MEASURED(4, "beams", range=AT_LEAST_1)
    max_output_length: int = MEASURED(16, "tokens", range=AT_LEAST_1)
    predict_batch_size: int | None = MEASURED(None, "as for train (default: that of train)", range=AT_LEAST_1)


def main(argv: list[str] | None = None) -> int:
    return measuring.run_benchmark(run, Settings, argv, __doc__)


def run(settings: Settings) -> dict:
    with tempfile.TemporaryDirectory() as name:
        variants = measuring.measure(evaluations(Path(name), settings), settings.rounds)
    ratios = {
        f"{kind}{BY_FILE}_over_{kind}_{field}": ratio(variants, kind + BY_FILE, kind, field)
        for kind in KINDS
        for field in ("median_s", "cpu_s", "decoding_steps")
    }
    return {"variants": variants, "ratios": ratios}


def evaluations(folder: Path, settings: Settings) -> dict[str, Callable[[], dict[str, float]]]:
    """Returns {variant: function that answers all dev files once, and returns seconds and steps}."""
    tokenizer = AutoTokenizer.from_pretrained(TINY_BART)
    files = dev_files(folder, tokenizer, settings)
    bart = str(measuring.saved_bart(folder / "bart", settings.model_size, settings.seed))
    models = {}
    for kind in {name.removesuffix(BY_FILE) for name in settings.variants}:
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
        kind = name.removesuffix(BY_FILE)
        parts = [files] if name == kind else [[file] for file in files]

        def run() -> dict[str, float]:
            start, began = measuring.now(settings.device), time.process_time()
            with counted_steps() as steps:
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
        gym, tasks = (
            Gym(measuring.write_gym(folder / "gym", UNSEEN, settings.seed)),
            [task.name for task in UNSEEN],
        )
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


if __name__ == "__main__":
    sys.exit(main())
