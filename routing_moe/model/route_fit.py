"""Fits a router to given routes before training, so that learned routing starts with them."""

from typing import NamedTuple

import torch
from torch import Tensor

from routing_moe.model.selection import soft_logits

STEPS = 1000  # of Adam, each on all tasks
RATE, TABLE_RATE = 1e-2, 0.1  # of networks and task vectors; of the logits themselves
CLOSE = 0.01  # nats of mean divergence at which the fit ends if the largest weights agree
TIE = 1e-6


class RouteFit(NamedTuple):
    """agreement: share of rows whose largest weight is at an expert of largest weight in the given routes.

    divergence: mean Kullback-Leibler divergence of the router's routes from the given ones, in nats.
    """

    agreement: float
    divergence: float
    steps: int

    def described(self) -> str:
        return (
            f"the router starts with the given routes: its strongest experts agree in {self.agreement:.1%} "
            f"of layers and tasks, mean divergence {self.divergence:.3g} nats after {self.steps} steps"
        )


def fit_router(
    model, tasks: list[str], routes_NLE: Tensor, temperature: float, fit_vectors: bool
) -> RouteFit:
    """Fits the router, and the task vectors if `fit_vectors`, to the routes of the named tasks.

    Minimises the cross-entropy of the soft routes at the temperature to the given ones, over the rows that
    layers read, without dropout. Needs no random numbers, so it is a function of the model and the routes.
    `requires_grad` and the training mode are as before. Raises KeyError for a task that the model does not
    know.
    """
    rows, task_ids_N = model.config.routed_rows, model.task_rows(tasks)
    targets_NLE = routes_NLE[:, rows].to(model.device, torch.float32)
    entropy = torch.special.entr(targets_NLE).sum(-1).mean().item()
    modules = [model.router, *([model.task_vectors] if fit_vectors else [])]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    before, was_training = [p.requires_grad for p in parameters], model.router.training
    for parameter in parameters:
        parameter.requires_grad_(True)
    model.router.eval()
    optimizer = torch.optim.Adam(parameters, lr=TABLE_RATE if model.config.has_table else RATE)
    for step in range(STEPS + 1):
        logits_NLE = model.router_logits(task_ids_N)[:, rows].float()
        scores_NLE = soft_logits(logits_NLE, model.config.router_mode, temperature)
        loss = -(targets_NLE * torch.log_softmax(scores_NLE, dim=-1)).sum(-1).mean()
        fit = RouteFit(_agreement(logits_NLE, targets_NLE), loss.item() - entropy, step)
        if step == STEPS or (fit.agreement == 1 and fit.divergence < CLOSE):
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for parameter, required in zip(parameters, before, strict=True):
        parameter.grad = None
        parameter.requires_grad_(required)
    model.router.train(was_training)
    return fit


def _agreement(logits_NLE: Tensor, targets_NLE: Tensor) -> float:
    chosen_NL1 = logits_NLE.argmax(dim=-1, keepdim=True)
    at_chosen_NL1 = targets_NLE.gather(-1, chosen_NL1)
    return float((at_chosen_NL1 >= targets_NLE.amax(dim=-1, keepdim=True) - TIE).float().mean())
