"""Route sources: the learned routes of the method and its baselines, which differ only in their routes.

A source is a function (model, task_ids_B) -> routes (B, L, E) with rows that sum to 1. In training mode it
returns the routes of a step, otherwise those of evaluation. Shapes: B examples, N tasks, L layers (encoder,
then decoder), E experts. The baselines are those of Ye, Zha, Ren 2022 (arXiv 2205.12701), section 5.2.
"""

import torch
from torch import Tensor

from routing_moe.config.choices import ROUTE_SOURCES
from routing_moe.model.selection import explore, noise_free_routes, random_one_hot, select_routes


def learned(model, task_ids_B: Tensor) -> Tensor:
    """Returns the router's routes: sampled and explored in training, otherwise noise-free."""
    config, logits_BLE = model.config, model.router_logits(task_ids_B)
    mode, temperature, top_k = config.router_mode, config.router_temperature, config.router_top_k
    if not model.training:
        return noise_free_routes(logits_BLE, mode, temperature, top_k)
    routes_BLE = select_routes(logits_BLE, mode, temperature, config.encoder_rows, top_k)
    if config.exploration_epsilon > 0:
        routes_BLE = explore(routes_BLE, config.exploration_epsilon)
    return routes_BLE


def average(model, task_ids_B: Tensor) -> Tensor:
    """Returns routes with all weights 1/E."""
    E = model.config.num_experts
    size = (len(task_ids_B), model.config.num_layers, E)
    return torch.full(size, 1 / E, device=model.device, dtype=model.routing_dtype)


def random(model, task_ids_B: Tensor) -> Tensor:
    """Returns a one-hot for every example and layer, drawn again at each call, also in evaluation."""
    size = (len(task_ids_B), model.config.num_layers)
    return random_one_hot(size, model.config.num_experts, model.device).to(model.routing_dtype)


def fixed(model, task_ids_B: Tensor) -> Tensor:
    """Returns the stored matrix of each task, `model.task_routes` (N, L, E), which is never trained."""
    return model.task_routes[task_ids_B]


ROUTE_SOURCES |= {"learned": learned, "average": average, "random": random, "fixed": fixed}


def random_task_routes(num_tasks: int, num_layers: int, num_experts: int, n: int, seed: int) -> Tensor:
    """Returns routes (N, L, E) whose rows have n different experts of weight 1/n, by `seed` alone."""
    if not 1 <= n <= num_experts:
        raise ValueError(f"n is {n}; it must be from 1 to the {num_experts} experts")
    generator = torch.Generator().manual_seed(seed)
    # The indices of the n largest of E independent uniform numbers are a uniform choice of n experts.
    chosen_NLn = torch.rand(num_tasks, num_layers, num_experts, generator=generator).topk(n, dim=-1).indices
    return torch.zeros(num_tasks, num_layers, num_experts).scatter(-1, chosen_NLn, 1 / n)
