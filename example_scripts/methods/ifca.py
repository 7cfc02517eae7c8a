"""IFCA: between trainings, tasks move to the expert of their lowest loss (arXiv 2006.04088).

Ghosh et al. 2020; `compare_methods.sh` alternates both. It begins with random groups of equal size, because
copies of one model hardly differ. An expert that no task uses stays as it is.
"""

import numpy as np
from find_groups import Tasks

from routing_moe.evaluation.route_losses import losses_along
from routing_moe.model.mixtures import routes_of_experts
from routing_moe.task_choice.transfer import means_by_task


def find(tasks: Tasks, groups: int):
    """Returns the expert (N,) of the lowest mean loss of each task's rows; for a plain model a random one."""
    model, N = tasks.model, len(tasks.names)
    if model.config.num_experts == 1:
        return np.random.default_rng(tasks.seed).permutation(N) % groups
    losses_RE = losses_along(model, tasks.rows, routes_of_experts(model), tasks.routed.accelerator)
    return means_by_task(losses_RE, tasks.rows.task_ids_N, N).argmin(axis=1)
