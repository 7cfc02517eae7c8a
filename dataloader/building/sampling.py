"""Cuts of a data set into few-shot rows and test rows, and the draw of a sample, as CrossFit draws it.

All shuffles are those of numpy's legacy generator, `RandomState(seed).shuffle`, of a list.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dataloader.building.recipe import SEED, Cut

SAMPLES = (100, 13, 21, 42, 87)  # the published seeds


def shuffled(rows: list, seed: int) -> list:
    """Returns the rows in another order; `rows` stays as it is."""
    order = np.arange(len(rows))  # indices are shuffled like the list itself, but faster
    np.random.RandomState(seed).shuffle(order)
    return [rows[index] for index in order]


def whole_splits(rows: list, test: list | None) -> tuple[list, list]:
    """Returns (pool, test rows): all rows of the few-shot split, and all of the test split."""
    assert test is not None
    return rows, test


def test_share(share: float) -> Cut:
    """Returns the cut that keeps a random share of the test split."""

    def cut(rows: list, test: list | None) -> tuple[list, list]:
        assert test is not None
        return rows, shuffled(test, SEED)[: int(share * len(test))]

    return cut


def one_split(pool: Callable[[int], slice], test: Callable[[int], slice]) -> Cut:
    """Returns the cut of a single split: slices of its shuffled rows, whose number the functions receive."""

    def cut(rows: list, _: list | None) -> tuple[list, list]:
        order = shuffled(rows, SEED)
        return order[pool(len(order))], order[test(len(order))]

    return cut


eighty_twenty = one_split(lambda n: slice(int(0.8 * n)), lambda n: slice(int(0.8 * n), None))


def draw_sample(pool: list[tuple], k: int, by_label: bool, seed: int) -> tuple[list, list]:
    """Returns the (train, dev) examples of a sample.

    pool: examples (input, output, ...). by_label: the first k examples of every output are for training and
    the next k for dev, outputs in order of first appearance in the shuffled pool; otherwise the first k
    examples of the shuffled pool, and the next k.
    """
    order = shuffled(pool, seed)
    if not by_label:
        return order[:k], order[k : 2 * k]
    groups: dict[str, list] = {}
    for example in order:
        groups.setdefault(example[1], []).append(example)
    train = [example for group in groups.values() for example in group[:k]]
    dev = [example for group in groups.values() for example in group[k : 2 * k]]
    return train, dev
