"""Random vectors, N(0, sigma): they identify a task, but hold no information about it.

    python -m task.task_emb.random --train_dir data/gym --taskvecs_dim 128 \\
        --output_dir data/task_vectors/random

The vector of a task depends only on its name and the seed, not on the other tasks.
"""

import argparse
import sys
import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dataloader.errors import fault_context
from dataloader.gym import Gym
from dataloader.task_splits import load_split
from routing_moe.config.flags import AT_LEAST_1, POSITIVE, SEED
from task.task_emb.arguments import random_parser
from task.task_emb.command import compute_vectors
from task.task_emb.settings import VectorSettings, number
from task.task_emb.sources import Names


@dataclass(frozen=True, kw_only=True)
class RandomSettings(VectorSettings):
    """One field per flag of `python -m task.task_emb.random`, which documents them."""

    method: ClassVar[str] = "random"

    taskvecs_dim: int = number(768, AT_LEAST_1)
    sigma: float = number(1.0, POSITIVE)
    seed: int = number(42, SEED)

    def source(self) -> Names:
        if self.train_dir:
            return Names(Gym(self.train_dir).tasks())
        if self.custom_tasks_splits:
            with fault_context("--custom_tasks_splits "):
                return Names(list(load_split(self.custom_tasks_splits).all))
        return Names(None)

    def extractor(self) -> "RandomExtractor":
        return RandomExtractor(self)


class RandomExtractor:
    def __init__(self, settings: RandomSettings):
        self.settings = settings

    def vector_of(self, task: str) -> np.ndarray:
        rng = np.random.default_rng([self.settings.seed, zlib.crc32(task.encode())])
        return rng.normal(0.0, self.settings.sigma, self.settings.taskvecs_dim)


def build_parser(description: str = "") -> argparse.ArgumentParser:
    return random_parser(RandomSettings, description)


def main(argv: list[str] | None = None) -> int:
    return compute_vectors(RandomSettings, build_parser(__doc__), argv)


if __name__ == "__main__":
    sys.exit(main())
