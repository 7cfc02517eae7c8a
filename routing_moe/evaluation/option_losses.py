"""The loss of a row among its options: nats of the accepted ones, given that the answer is one of them.

Tasks with the same labels have a low loss along each other's experts also where they contradict each other,
because both experts know the labels. Among the options, that does not count.

R rows, P pairs of a row and one of its options, row by row.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dataloader.gym import Example


def pairs_of(examples: Sequence[Example]) -> tuple[list[Example], np.ndarray, np.ndarray]:
    """Returns (P examples with an option as the answer, their rows (P,), whether the row accepts it (P,))."""
    pairs = [replace(example, outputs=(option,)) for example in examples for option in example.options]
    rows_P = np.repeat(np.arange(len(examples)), [len(example.options) for example in examples])
    accepted = [option in example.outputs for example in examples for option in example.options]
    return pairs, rows_P, np.array(accepted)


def among_options(
    losses_P: np.ndarray, tokens_P: np.ndarray, rows_P: np.ndarray, is_accepted_P: np.ndarray
) -> np.ndarray:
    """Returns the losses (R,) of rows by the losses of their options in nats, and their numbers of tokens.

    The score of an option is its mean log-likelihood per token, as in `option_ranking`. Each row has at least
    one accepted option.
    """
    first_R = np.flatnonzero(np.diff(rows_P, prepend=-1))
    scores_P = -losses_P / tokens_P
    accepted_P = np.where(is_accepted_P, scores_P, -np.inf)
    return np.logaddexp.reduceat(scores_P, first_R) - np.logaddexp.reduceat(accepted_P, first_R)
