"""The examples of all scored files as one list, and the routes of each example.

N examples of all files, K rows of routes, L layers, E experts.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from dataloader.encoding import EncodedExamples, Ragged
from routing_moe.evaluation.scored_files import Decoding, TaskFile
from routing_moe.io.main_process import on_main
from routing_moe.model.selection import random_one_hot


class Pool:
    """The examples of files, one file after the other.

    encoded: their tokens. options: the answer options of each example, () if it has none; option_rows: their
    rows of option_tokens.
    """

    def __init__(self, files: list[TaskFile]):
        self.files = files
        self.encoded = EncodedExamples.joined([file.encoded for file in files])
        self.sizes = [len(file.examples) for file in files]
        with_options = [file.encoded_options for file in files if file.encoded_options]
        self.option_tokens = Ragged.joined([options.tokens for options in with_options])
        self.options: list[tuple[str, ...]] = []
        self.option_rows: list[np.ndarray] = []
        first = 0
        for file in files:
            self.options += file.options or [()] * len(file.examples)
            if file.encoded_options:
                self.option_rows += [rows + first for rows in file.encoded_options.rows]
                first += len(file.encoded_options.tokens)
            else:
                self.option_rows += [np.zeros(0, dtype=np.int64)] * len(file.examples)

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def all(self) -> np.ndarray:
        """Indices of all examples."""
        return np.arange(len(self))

    def members(self, has_options: bool) -> np.ndarray:
        """Returns the indices of the examples that have answer options, or of those that have none."""
        return np.array([i for i, own in enumerate(self.options) if bool(own) == has_options], dtype=np.int64)

    def by_file(self, values: list) -> list[list]:
        """Returns a list for each file from one value per example."""
        ends = np.cumsum(self.sizes)
        return [values[end - size : end] for end, size in zip(ends, self.sizes, strict=True)]

    def batch(self, indices: np.ndarray, model) -> dict[str, Tensor]:
        """Returns input_ids, attention_mask and labels of the examples, on the model's device."""
        return batch_of(self.encoded, indices, model)


def batch_of(examples: EncodedExamples, indices: np.ndarray, model) -> dict[str, Tensor]:
    """Returns input_ids, attention_mask and labels of some examples, on the model's device."""
    batch = examples.collate(indices, pad_token_id=model.config.pad_token_id)
    return {name: t.to(model.device) for name, t in batch.items() if name != "task_ids"}


# ---- routes


@dataclass(frozen=True, eq=False)
class Routes:
    """The routes of N examples: that of example i is `rows_KLE[which_N[i]]`."""

    rows_KLE: Tensor
    which_N: np.ndarray

    @classmethod
    def of_files(cls, routes: list[Tensor], sizes: list[int]) -> "Routes":
        """Returns routes from those of each file: one of its task (1, L, E), or one of each example."""
        starts = np.cumsum([0, *map(len, routes)])
        which = [
            np.full(size, start) if len(own) == 1 else np.arange(start, start + size)
            for own, size, start in zip(routes, sizes, starts, strict=False)
        ]
        return cls(torch.cat(routes), np.concatenate(which))

    def of(self, indices: np.ndarray) -> Tensor:
        """Returns the routes (b, L, E) of the examples."""
        return self.rows_KLE[torch.from_numpy(self.which_N[indices])]


def draws_of(model, pool: Pool, decoding: Decoding, accelerator: Accelerator) -> list[Routes]:
    """Returns the routes of all examples; for random routes a list with those of each draw.

    With several processes, sampled routes are those of the main process.
    """

    def drawn() -> list[Routes]:
        by_file = [routes_of_file(model, file, decoding) for file in pool.files]
        return [Routes.of_files(list(routes), pool.sizes) for routes in zip(*by_file, strict=True)]

    if decoding.sampled_routes and accelerator.num_processes > 1:
        sampled = on_main(accelerator, lambda: [replace(r, rows_KLE=r.rows_KLE.cpu()) for r in drawn()])
        return [replace(routes, rows_KLE=routes.rows_KLE.to(model.device)) for routes in sampled]
    return drawn()


def routes_of_file(model, file: TaskFile, decoding: Decoding) -> Iterator[Tensor]:
    """Yields the routes for a file: its task's route (1, L, E), or draws of random routes (n, L, E)."""
    config = model.config
    if config.route_source != "random" or config.num_experts == 1:
        yield model.routes_for([file.task], noise=decoding.sampled_routes)
        return
    size = (len(file.examples), config.num_layers)
    seed = decoding.seed + zlib.crc32(f"{file.sample} {file.part}".encode())
    generator = torch.Generator().manual_seed(seed)
    for _ in range(decoding.random_draws):
        routes_nLE = random_one_hot(size, config.num_experts, generator=generator)
        yield routes_nLE.to(model.device, model.dtype)
