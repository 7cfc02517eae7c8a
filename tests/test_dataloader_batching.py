"""Batches are a pure function of (seed, step), and a step is split at minimum cost."""

import itertools

import numpy as np
import pytest

from dataloader import answer_choices, assign_to_ranks, micro_batches, step_examples


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (12, 4), (3, 8), (1, 5)])
def test_every_epoch_has_every_example_once(n, batch_size):
    epochs = 8
    drawn = np.concatenate(
        [step_examples(n, batch_size, 7, step) for step in range(epochs * n // batch_size)]
    )
    whole_epochs = drawn[: len(drawn) // n * n].reshape(-1, n)
    assert (np.sort(whole_epochs, axis=1) == np.arange(n)).all()
    assert drawn.dtype == np.int64


def test_answers_are_drawn_uniformly_and_reproducibly():
    n_outputs = np.array([1, 2, 4] * 2000)
    choices = answer_choices(n_outputs, 3, 9)
    assert (choices == answer_choices(n_outputs, 3, 9)).all()
    assert not (choices == answer_choices(n_outputs, 3, 10)).all()
    for column, count in ((0, 1), (1, 2), (2, 4)):
        shares = np.bincount(choices[column::3], minlength=count) / 2000
        assert shares == pytest.approx(np.full(count, 1 / count), abs=0.05)


def cost(sources, targets, group, overhead):
    return len(group) * (sources[group].max() + targets[group].max()) + overhead


def cheapest_of_all_splits(sources, targets, max_tokens, max_examples, overhead):
    """Brute force: tries every split of the sorted order into contiguous groups."""
    order = np.lexsort((sources, sources + targets))
    best = np.inf
    for cuts in itertools.product([False, True], repeat=len(order) - 1):
        groups = np.split(order, np.flatnonzero(cuts) + 1)
        too_many = max_examples is not None and max(map(len, groups)) > max_examples
        too_long = max_tokens is not None and any(
            len(group) > 1 and cost(sources, targets, group, 0) > max_tokens for group in groups
        )
        if not too_many and not too_long:
            best = min(best, sum(cost(sources, targets, group, overhead) for group in groups))
    return best


@pytest.mark.parametrize(
    ("max_tokens", "max_examples", "overhead"),
    [(None, None, 0), (None, 3, 20), (60, None, 20), (60, 1, 0), (200, 3, 300), (200, None, 0)],
)
def test_the_split_is_the_cheapest_of_all_splits(max_tokens, max_examples, overhead):
    generator = np.random.default_rng(1)
    for n in (1, 2, 5, 8, 8):
        sources, targets = generator.integers(1, 80, n), generator.integers(1, 30, n)
        groups = micro_batches(sources, targets, max_tokens, max_examples, overhead)
        assert sorted(np.concatenate(groups)) == list(range(n))
        found = sum(cost(sources, targets, group, overhead) for group in groups)
        assert found == cheapest_of_all_splits(sources, targets, max_tokens, max_examples, overhead)
        for group in groups:
            assert max_examples is None or len(group) <= max_examples
            assert max_tokens is None or len(group) == 1 or cost(sources, targets, group, 0) <= max_tokens


def test_a_split_equals_a_hand_computed_one():
    # One group: 3 * (10 + 1) + 5 = 38. Split before the long one: 2 * (2 + 1) + 5 + 10 + 1 + 5 = 27.
    groups = micro_batches([2, 10, 2], [1, 1, 1], overhead_tokens=5)
    assert [group.tolist() for group in groups] == [[0, 2], [1]]
    assert len(micro_batches([2, 10, 2], [1, 1, 1], overhead_tokens=50)) == 1
    longer = micro_batches([500, 3, 4], [20, 2, 2], max_tokens=100)  # above the limit: a group of its own
    assert [group.tolist() for group in longer] == [[1, 2], [0]]


def test_no_examples_give_no_groups_and_a_wrong_bound_is_an_error():
    assert micro_batches([], []) == []
    with pytest.raises(ValueError, match="max_examples is 0"):
        micro_batches([1], [1], max_examples=0)


def test_groups_go_to_the_rank_with_the_lowest_load():
    # 7 -> rank 0, 6 -> 1, 5 -> 1 would make 11, but 2 is empty: 5 -> 2, 4 -> 2 (9), 3 -> 1 (9), 2 -> 0 (9).
    assert assign_to_ranks([4, 7, 2, 6, 3, 5], 3) == [[1, 2], [3, 4], [0, 5]]
    assert assign_to_ranks([1, 1], 4) == [[0], [1], [], []]
    assert assign_to_ranks([2, 1], 1) == [[0, 1]]
