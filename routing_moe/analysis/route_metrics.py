"""Measures of routes: overlap of tasks, entropy, load of experts, information about the task.

Routes are arrays (N, L, E) whose rows sum to 1. N tasks, L layers, E experts.
"""

from __future__ import annotations

import numpy as np
from scipy.special import entr


def overlap(values_NLE: np.ndarray) -> np.ndarray:
    """Returns overlaps of routes of tasks (N, N), 0 to 1: sum_e min(a_e, b_e), averaged over layers.

    For one-hot routes it is the share of layers in which both use the same expert; 1 - overlap is the mean
    total variation distance.
    """
    shared_NN = np.zeros((len(values_NLE), len(values_NLE)))
    for layer in range(values_NLE.shape[1]):  # one at a time bounds the memory
        shared_NN += np.minimum(values_NLE[:, None, layer], values_NLE[None, :, layer]).sum(axis=-1)
    return np.minimum(shared_NN / values_NLE.shape[1], 1.0)  # rounding may add up to more


def shift(before_NLE: np.ndarray, after_NLE: np.ndarray) -> np.ndarray:
    """Returns the share of the weight that each task moved to other experts in each layer (N, L), 0 to 1."""
    return 0.5 * np.abs(after_NLE - before_NLE).sum(axis=-1)


def entropy(values_NLE: np.ndarray) -> np.ndarray:
    """Returns the entropy of routes by task and layer (N, L) as a share of log E; 0 if one-hot or E = 1."""
    experts = values_NLE.shape[-1]
    return entr(values_NLE).sum(axis=-1) / np.log(experts) if experts > 1 else np.zeros(values_NLE.shape[:2])


def load(values_NLE: np.ndarray) -> np.ndarray:
    """Returns the load of each expert (L, E): its mean weight over tasks; 1/E everywhere if balanced."""
    return values_NLE.mean(axis=0)


def load_entropy(values_NLE: np.ndarray) -> np.ndarray:
    """Returns the entropy of each layer's load (L,) as a share of log E: 1 is balanced, 0 one expert."""
    return entropy(load(values_NLE)[None])[0]


def information(values_NLE: np.ndarray) -> np.ndarray:
    """Returns the mutual information of task and expert in each layer (L,), as a share of log E.

    It is the entropy of the load minus the mean entropy of the routes; 0 if all tasks have the same route.
    """
    return load_entropy(values_NLE) - entropy(values_NLE).mean(axis=0)
