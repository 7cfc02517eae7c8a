"""MBC: groups of tasks whose experts, trained apart, have similar weights (arXiv 2405.11157).

Ostapenko et al. 2024: a low-rank expert is trained for each task, for a few steps on a frozen model; k-means
divides the weights, scaled to length 1, by cosines. Here these are the updates B A: factors are not unique.
"""

import numpy as np
import torch
from find_groups import Tasks

from routing_moe.model.mixtures import weights_of_experts

STARTS = 10  # of k-means, of which the best counts


def updates(model) -> np.ndarray:
    """Returns the updates (E, P) of low-rank experts, all linear maps one after the other."""
    L, E = model.config.num_layers, model.config.num_experts
    base, experts = model.to_plain(torch.zeros(L, E)).state_dict(), weights_of_experts(model)
    return np.stack(
        [torch.cat([(w - base[name]).flatten() for name, w in own.items()]).numpy() for own in experts]
    )


def find(tasks: Tasks, groups: int):
    """Returns a group of each task (N,). The run must have a low-rank expert for each task."""
    from sklearn.cluster import KMeans  # takes a second

    routes_NLE = tasks.model.routes_for(tasks.names)
    vectors_ND = updates(tasks.model)[routes_NLE[:, 0].argmax(dim=-1).numpy()].astype(np.float64)
    vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True).clip(1e-12)
    return KMeans(groups, n_init=STARTS, random_state=tasks.seed).fit_predict(vectors_ND)
