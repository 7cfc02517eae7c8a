"""The share of each task in training (`--task_sampling`), and the order of examples that has these shares.

An epoch is as many examples as the gym has, and a pure function of the seed and its number. The draws of each
task and each row in it are their expected number, rounded up or down.
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


def parse_task_sampling(text: str) -> tuple[str, float | None] | None:
    """Returns ("temperature", 2.0) for "temperature:2", ("tasks", None) for "tasks"; None for other texts."""
    kind, colon, number = text.partition(":")
    try:
        value = float(number) if colon else None
    except ValueError:
        return None
    is_right = kind in TASK_SAMPLINGS and bool(colon) == (kind in WITH_NUMBER)
    return (kind, value) if is_right and (value is None or value >= 1) else None


class TaskMixture:
    """The tasks of N training examples and the share of each; a task is what the split names.

    task_ids_N: the task of each example; sampling: a value of --task_sampling.
    task_ids, shares: id and share (they sum to 1) of each task with examples. draws_N: how often each example
    is drawn in an epoch, on average.
    """

    def __init__(self, task_ids_N: np.ndarray, sampling: str = "examples"):
        self.sampling, self.task_ids_N = sampling, task_ids_N
        self.task_ids, tasks_N, counts = np.unique(task_ids_N, return_inverse=True, return_counts=True)
        kind, number = parse_task_sampling(sampling)
        weights = TASK_SAMPLINGS[kind](counts.astype(float), number)
        self.shares = weights / weights.sum()
        self.draws_N = len(task_ids_N) * (self.shares / counts)[tasks_N]

    def epoch_order(self, seed: int, epoch: int) -> np.ndarray:
        """Returns the example indices of an epoch in their order, int64 (N,). Must not be changed."""
        if self.sampling == "examples":
            return permuted_epoch(len(self.task_ids_N), seed, epoch)
        return _mixed_epoch(self, seed, epoch)

    def described(self, names: list[str]) -> str:
        """Returns a line for the log. names: by task id."""
        order = np.argsort(-self.shares, kind="stable")
        shown = [f"{names[self.task_ids[i]]} {100 * self.shares[i]:.3g}%" for i in order]
        return f"task sampling: {self.sampling}; shares of tasks: {', '.join(shown)}"


@lru_cache(maxsize=4)
def _mixed_epoch(mixture: TaskMixture, seed: int, epoch: int) -> np.ndarray:
    """Returns an epoch by systematic sampling: N equal steps along the draws of all examples, by task."""
    random, N = np.random.default_rng([seed, epoch]), len(mixture.task_ids_N)
    rows_N = random.permutation(N)
    rows_N = rows_N[np.argsort(mixture.task_ids_N[rows_N], kind="stable")]
    ends_N = mixture.draws_N[rows_N].cumsum()
    places_N = np.searchsorted(ends_N, random.random() + np.arange(N), side="right")
    order = random.permutation(rows_N[places_N.clip(max=N - 1)])  # the last end may be rounded down
    order.setflags(write=False)
    return order
