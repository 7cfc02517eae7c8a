"""The share of each task in training (`--task_sampling`), and the order of examples that has these shares.

An epoch is as many examples as the gym has, and a pure function of the seed and its number. The draws of a
task are passes over its rows, each in another order: a row is drawn again only after all others of its task.
"""

from functools import lru_cache

import numpy as np

from dataloader.batching import permuted_epoch

# The weight of a task by its number of rows n; x is the number after the colon.
TASK_SAMPLINGS = {
    "examples": lambda n, x: n,
    "tasks": lambda n, x: np.ones_like(n),
    # T5 (Raffel et al. 2020, arXiv 1910.10683), section 3.5.2. mT5 and multilingual BERT give alpha = 1 / x.
    "temperature": lambda n, x: n ** (1 / x),
    "cap": lambda n, x: np.minimum(n, x),
}
WITH_NUMBER = ("temperature", "cap")
WANTED = "examples, tasks, temperature:T or cap:N, with a number of at least 1, such as temperature:2"

_ROW_STREAM = 2  # makes the orders of rows independent of the draws in `batching.py`


def parse_task_sampling(text: str) -> tuple[str, float | None]:
    """Returns ("temperature", 2.0) for "temperature:2", ("tasks", None) for "tasks". Raises ValueError."""
    kind, colon, number = text.partition(":")
    value = float(number) if colon else None
    is_right = kind in TASK_SAMPLINGS and bool(colon) == (kind in WITH_NUMBER)
    if not is_right or (value is not None and not value >= 1):  # also NaN
        raise ValueError(f"{text!r} is not {WANTED}")
    return kind, value


def is_task_sampling(text: str) -> bool:
    """Returns whether `parse_task_sampling` accepts the text."""
    try:
        parse_task_sampling(text)
    except ValueError:
        return False
    return True


class TaskMixture:
    """The tasks of N training examples and the share of each; a task is what the split names.

    task_ids_N: the task of each example; sampling: a value of --task_sampling.
    task_ids, counts, shares: id, number of examples and share (they sum to 1) of each task with examples.
    """

    def __init__(self, task_ids_N: np.ndarray, sampling: str = "examples"):
        self.sampling = sampling
        self.task_ids, self.counts = np.unique(task_ids_N, return_counts=True)
        kind, number = parse_task_sampling(sampling)
        weights = TASK_SAMPLINGS[kind](self.counts.astype(float), number)
        self.shares = weights / weights.sum()
        self._rows = np.split(np.argsort(task_ids_N, kind="stable"), self.counts.cumsum()[:-1])

    def epoch_order(self, seed: int, epoch: int) -> np.ndarray:
        """Returns the example indices of an epoch in their order, int64 (N,). Must not be changed."""
        if self.sampling == "examples":
            return permuted_epoch(int(self.counts.sum()), seed, epoch)
        return _mixed_epoch(self, seed, epoch)

    def draws_before(self, epoch: int) -> np.ndarray:
        """Returns how often each task is drawn before an epoch, int64: its share, to within one draw."""
        ends = np.floor(self.shares.cumsum() * (epoch * self.counts.sum()) + 0.5).astype(np.int64)
        return np.diff(ends, prepend=0)

    def draws_of_task(self, task: int, seed: int, start: int, end: int) -> np.ndarray:
        """Returns the example indices of draws start..end-1 of a task, by its position in `task_ids`."""
        rows = self._rows[task]
        first, last = start // len(rows), max(start, end - 1) // len(rows)
        passes = [
            np.random.default_rng([seed, number, task, _ROW_STREAM]).permutation(rows)
            for number in range(first, last + 1)
        ]
        return np.concatenate(passes)[start - first * len(rows) : end - first * len(rows)]

    def described(self, names: list[str]) -> list[str]:
        """Returns lines for the log. names: by task id."""
        order = np.argsort(-self.shares, kind="stable")
        shown = [f"{names[self.task_ids[i]]} {100 * self.shares[i]:.3g}%" for i in order]
        passes = self.shares * self.counts.sum() / self.counts
        lines = [
            f"task sampling: {self.sampling}; shares from {shown[-1]} to {shown[0]}; in an epoch of "
            f"{self.counts.sum()} examples, a row is drawn {passes.min():.3g} to {passes.max():.3g} times"
        ]
        return lines if self.sampling == "examples" else [*lines, f"shares of tasks: {', '.join(shown)}"]


@lru_cache(maxsize=4)
def _mixed_epoch(mixture: TaskMixture, seed: int, epoch: int) -> np.ndarray:
    starts, ends = mixture.draws_before(epoch), mixture.draws_before(epoch + 1)
    bounds = (ends - starts).cumsum()
    places = np.split(np.random.default_rng([seed, epoch]).permutation(bounds[-1]), bounds[:-1])
    order = np.empty(bounds[-1], dtype=np.int64)
    for task, positions in enumerate(places):
        order[np.sort(positions)] = mixture.draws_of_task(task, seed, starts[task], ends[task])
    order.setflags(write=False)
    return order
