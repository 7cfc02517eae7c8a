"""Random vectors, N(0, sigma): they identify a task, but hold no information about it.

    routing-moe vectors random --train_dir data/gym --taskvecs_dim 128 \\
        --output_dir data/task_vectors/random

The vector of a task depends only on its name and the seed, not on the other tasks.
"""

import sys
import zlib
from dataclasses import dataclass

import numpy as np

from dataloader.errors import problem_context
from dataloader.gym import Gym
from dataloader.task_splits import load_split
from routing_moe.config.flags import AT_LEAST_1, POSITIVE, SEED, group
from task.task_emb.command import compute_vectors
from task.task_emb.settings import VectorSettings
from task.task_emb.sources import Names

DRAW = group("random vectors")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class RandomSettings(VectorSettings):
    """The flags of `routing-moe vectors random`."""

    program = "routing-moe vectors random"
    usage = "--output_dir FOLDER [flags, see --help]"
    method = "random"

    train_dir: str | None = DRAW(None, "gym folder with the tasks (default: the tasks of the split, or of --tasks)", on_resume=True)
    taskvecs_dim: int = DRAW(768, "dimension", range=AT_LEAST_1)
    sigma: float = DRAW(1.0, "standard deviation", range=POSITIVE)
    seed: int = DRAW(42, "random seed", range=SEED)
# fmt: on

    def source(self) -> Names:
        if self.train_dir:
            return Names(Gym(self.train_dir).tasks())
        if self.custom_tasks_splits:
            with problem_context("--custom_tasks_splits "):
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


def main(argv: list[str] | None = None) -> int:
    return compute_vectors(RandomSettings, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
