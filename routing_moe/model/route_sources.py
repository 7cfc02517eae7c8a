"""Where routes come from. The method and its baselines differ in nothing else.

A source is a function (model, task_ids_B) -> routes (B, L, E), rows summing to 1: in training mode what a
step uses, else what is evaluated. Shapes: B examples, N tasks, L layers (encoder, then decoder), E experts.
The baselines are those of Ye, Zha, Ren 2022 (arXiv 2205.12701), section 5.2.
"""

import torch
from torch import Tensor

from routing_moe.model.selection import explore, noise_free_routes, random_one_hot, select_routes


def learned(model, task_ids_B: Tensor) -> Tensor:
    """Router and selection at the current temperature: sampled and explored in training, noise-free else."""
    config, logits_BLE = model.config, model.router_logits(task_ids_B)
    mode, temperature, top_k = config.router_mode, config.router_temperature, config.router_top_k
    if not model.training:
        return noise_free_routes(logits_BLE, mode, temperature, top_k)
    routes_BLE = select_routes(logits_BLE, mode, temperature, config.encoder_layers, top_k)
    if config.exploration_epsilon > 0:
        routes_BLE = explore(routes_BLE, config.exploration_epsilon)
    return routes_BLE


def average(model, task_ids_B: Tensor) -> Tensor:
    """1/E everywhere."""
    E = model.config.num_experts
    size = (len(task_ids_B), model.config.num_layers, E)
    return torch.full(size, 1 / E, device=model.device, dtype=model.dtype)


def random(model, task_ids_B: Tensor) -> Tensor:
    """A one-hot for every example and layer, drawn anew at each call, in evaluation too."""
    size = (len(task_ids_B), model.config.num_layers)
    return random_one_hot(size, model.config.num_experts, model.device).to(model.dtype)


def fixed(model, task_ids_B: Tensor) -> Tensor:
    """The matrix that is stored for each task, `model.task_routes` (N, L, E); never trained."""
    return model.task_routes[task_ids_B]


ROUTE_SOURCES = {"learned": learned, "average": average, "random": random, "fixed": fixed}


def random_task_routes(num_tasks: int, num_layers: int, num_experts: int, n: int, seed: int) -> Tensor:
    """Task-level random routes (N, L, E): n different experts of each row, drawn uniformly, weight 1/n each.

    A function of its arguments alone. Raises ValueError for an n that is not from 1 to E.
    """
    if not 1 <= n <= num_experts:
        raise ValueError(f"n is {n}; it must be from 1 to the {num_experts} experts")
    generator = torch.Generator().manual_seed(seed)
    # The n largest of E independent uniform numbers are a uniform choice of n different experts.
    chosen_NLn = torch.rand(num_tasks, num_layers, num_experts, generator=generator).topk(n, dim=-1).indices
    return torch.zeros(num_tasks, num_layers, num_experts).scatter(-1, chosen_NLn, 1 / n)
