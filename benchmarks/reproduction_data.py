"""Lengths of texts and numbers of rows of a gym, for the estimate of reproduction.py.

If the gym has no task of a section of the split, both are assumed: values of tasks of CrossFit's gym.
"""

import math
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from dataloader.encoding import TextFormat
from dataloader.gym import Gym
from dataloader.task_splits import load_split
from routing_moe.evaluation.batches import LONG_EXAMPLE, SHORT_PER_LONG, cut
from routing_moe.io.hub import in_cache
from routing_moe.optim.micro_batches import Cut

CHARACTERS_PER_TOKEN = 4.5  # of English and BART's tokenizer, if the tokenizer is not on this machine
# Source and target tokens of 32 typical train rows, means of groups of rows of similar length: of 80 train
# and 14 test tasks of random.json, counted from characters.
ASSUMED_LENGTHS = {
    ("train", "source"): (
        *(12, 14, 15, 17, 18, 20, 22, 24, 25, 27, 28, 30, 31, 32, 32, 35),
        *(37, 37, 39, 41, 43, 44, 48, 50, 54, 57, 65, 76, 121, 179, 307, 504),
    ),
    ("train", "target"): (
        *(4, 4, 5, 5, 5, 5, 5, 5, 6, 5, 5, 5, 5, 6, 6, 5),
        *(5, 6, 5, 6, 7, 8, 7, 8, 9, 10, 9, 11, 8, 6, 9, 8),
    ),
    ("test", "source"): (
        *(8, 9, 11, 13, 14, 16, 17, 20, 22, 24, 25, 27, 28, 31, 33, 34),
        *(37, 42, 43, 43, 44, 49, 47, 54, 54, 56, 60, 64, 69, 72, 71, 136),
    ),
    ("test", "target"): (
        *(5, 6, 6, 5, 5, 4, 5, 5, 5, 5, 5, 5, 7, 7, 7, 9),
        *(8, 5, 7, 9, 11, 8, 12, 7, 11, 12, 12, 14, 15, 25, 46, 22),
    ),
}
# Mean rows of a file: dev files have 32 rows, or 16 per label; the test files of the 20 test tasks of
# random.json have 58,000 rows, those of the 120 train tasks 1.0 million.
ASSUMED_ROWS = {("train", "dev"): 44, ("test", "dev"): 34, ("train", "test"): 8300, ("test", "test"): 2900}
SAMPLES = 5  # of a task in CrossFit's gym
EXAMPLES_PER_TASK = 32
STEPS_CUT = 64  # steps whose micro-batches are averaged


class GymData:
    """The texts and files of the tasks of a split.

    gym: folder, which need not exist. model: whose tokenizer counts tokens. longest: most source and target
    tokens.
    """

    def __init__(self, gym: str | Path, split: str | Path, model: str, longest: tuple[int, int]):
        self.folder, self.split, self.longest = Path(gym), load_split(split), longest
        self.gym = Gym(gym, skip_malformed=True) if self.folder.is_dir() else None
        self.known = set(self.gym.tasks()) if self.gym else set()
        self.count, self.counted = token_counter(model)
        self.lengths = cache(self._lengths)
        self.file_rows = cache(self._file_rows)

    def tasks(self, section: str) -> list[str]:
        """Returns the tasks of a section that the gym has."""
        return [task for task in self.split.section(section) if task in self.known]

    def _lengths(self, section: str) -> np.ndarray:
        """Returns the (source, target) tokens of some train rows of a section in random order, (N, 2)."""
        rng, text, found = random.Random(0), TextFormat(), []
        for task in self.tasks(section):
            rows = self.gym.examples(task, "train", "first")
            for row in rng.sample(rows, min(EXAMPLES_PER_TASK, len(rows))):
                found.append((self.count(text.source(row)), self.count(text.target(row.outputs[0]))))
        found = found or assumed_lengths(section) * 4
        rng.shuffle(found)
        return np.minimum(found, self.longest)

    def mean_lengths(self, section: str) -> tuple[int, int]:
        """Returns the mean (source, target) tokens of a section's rows, without padding."""
        S, T = self.lengths(section).mean(axis=0).round()
        return int(S), int(T)

    def step_shape(self, section: str, batch: int, cut: Cut) -> tuple[float, float]:
        """Returns (padded tokens, micro-batches) of a step of `batch` rows, means over steps.

        cut: where training in one process on the device cuts a step.
        """
        lengths = np.concatenate([self.lengths(section)] * math.ceil(batch / len(self.lengths(section))))
        shapes = []
        for first in range(0, min(len(lengths) - batch, batch * STEPS_CUT) + 1, batch):
            step = lengths[first : first + batch]
            groups = cut.groups(*step.T, batch)
            padded = sum(len(group) * cut.width(step[group].max(axis=0)).sum() for group in groups)
            shapes.append((float(padded), len(groups)))
        tokens, count = np.mean(shapes, axis=0)
        return float(tokens), float(count)

    def rows_at_once(self, section: str, long_examples: int) -> int:
        """Returns the mean number of rows of a batch of many answers. long_examples: --predict_batch_size."""
        most, (sources, targets) = long_examples * SHORT_PER_LONG, self.lengths(section).T
        # As `evaluation.batches.longest_first`, for several times as many rows as a batch has.
        order = np.lexsort((-sources, -np.ceil(np.log2(targets))))
        order = np.repeat(order, math.ceil(4 * most / len(order)))
        batches = list(cut(order, sources + self.longest[1], long_examples * LONG_EXAMPLE, most))
        return max(1, round(len(order) / len(batches)))

    def rows(self, section: str, part: str, samples: tuple[str, ...], most: int | None = None) -> int:
        """Returns the rows of the files of a section; arguments as for `file_rows`."""
        return sum(self.file_rows(section, part, samples, most))

    def _file_rows(
        self, section: str, part: str, samples: tuple[str, ...], most: int | None = None
    ) -> list[int]:
        """Returns the rows of each file of a section, and for tasks that the gym lacks about as many.

        samples: all, first, or seeds. most: rows that are read of each file; None: all.
        """
        tasks, names, most = self.tasks(section), samples, most or math.inf
        counts = [
            min(most, self._lines(task, f"{sample}_{part}"))
            for task in tasks
            for name in names
            for sample in self.gym.named_samples(task, name)
        ]
        lacking = len(self.split.section(section)) - len(tasks)
        files = SAMPLES if samples == ("all",) else len(names)
        return counts + [min(most, ASSUMED_ROWS[section, part])] * (lacking * files)

    def _lines(self, task: str, stem: str) -> int:
        for path in (self.folder / task).glob(f"{stem}.*"):
            with path.open("rb") as lines:
                return sum(1 for line in lines if line.strip())
        return 0

    def described(self, section: str) -> str:
        """Returns where the lengths and numbers of rows of a section are from."""
        have, all_tasks = len(self.tasks(section)), len(self.split.section(section))
        if not have:
            return f"assumed, because {self.folder} has none of them"
        rows = f"rows of {all_tasks - have} tasks assumed, " if have < all_tasks else ""
        return f"from {have} tasks in {self.folder}, {rows}tokens {self.counted}"


def assumed_lengths(section: str) -> list[tuple[int, int]]:
    return list(zip(*(ASSUMED_LENGTHS[section, side] for side in ("source", "target")), strict=True))


def token_counter(model: str) -> tuple[Callable[[str], int], str]:
    """Returns a function that counts the tokens of a text, special ones included, and how it counts."""
    folder = Path(model) if Path(model).is_dir() else getattr(in_cache(model), "folder", None)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder or model, local_files_only=True)
    except (OSError, ValueError):
        return lambda text: math.ceil(len(text) / CHARACTERS_PER_TOKEN) + 2, "from characters, 4.5 per token"
    return lambda text: len(tokenizer(text)["input_ids"]), "by its tokenizer"
