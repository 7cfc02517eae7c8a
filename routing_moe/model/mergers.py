"""Mergers: the weight differences of several models from the one that they all started from become one.

A merger is called with differences_MP (M models, P weights), density and generator; it returns the merged
difference (P,), and may change its argument. density: the share of the differences that it keeps. generator:
of random numbers; None: that of torch. They are those of `peft.utils.merge_utils`, which calls `dare`
dare_linear.
"""

import torch
from torch import Tensor

from dataloader.errors import InputError
from routing_moe.config.choices import MERGERS


def largest(differences_MP: Tensor, density: float) -> Tensor:
    """Sets the differences to 0, for all but the largest magnitudes of each model, and returns them."""
    for row_P in differences_MP:  # a model at a time, in place, saves memory
        chosen_K = row_P.abs().topk(int(density * len(row_P)), sorted=False).indices
        kept_K = row_P[chosen_K]
        row_P.zero_()[chosen_K] = kept_K
    return differences_MP


def at_random(differences_MP: Tensor, density: float, generator: torch.Generator | None) -> Tensor:
    """Sets random differences to 0, divides the others by the density, and returns them."""
    for row_P in differences_MP:
        kept_P = torch.bernoulli(torch.full_like(row_P, density), generator=generator)
        row_P.mul_(kept_P).div_(density)
    return differences_MP


def elected(differences_MP: Tensor) -> Tensor:
    """Returns, for each weight, the mean of the differences whose sign is that of their sum."""
    sign_P = torch.where(differences_MP.sum(dim=0) >= 0, 1.0, -1.0)
    sum_P, count_P = differences_MP.new_zeros((2, len(sign_P)))
    for row_P in differences_MP:
        agrees_P = (row_P.sign() == sign_P).to(row_P)
        sum_P.addcmul_(row_P, agrees_P)
        count_P.add_(agrees_P)
    return sum_P / count_P.clamp_(min=1)


MERGERS |= {
    "mean": lambda d_MP, **_: d_MP.mean(dim=0),  # model soups (Wortsman et al. 2022, arXiv 2203.05482)
    "task_arithmetic": lambda d_MP, **_: d_MP.sum(dim=0),  # Ilharco et al. 2023, arXiv 2212.04089
    "magnitude_prune": lambda d_MP, density, **_: largest(d_MP, density).sum(dim=0),
    "ties": lambda d_MP, density, **_: elected(largest(d_MP, density)),  # Yadav et al. 2023, arXiv 2306.01708
    # DARE: Yu et al. 2024, arXiv 2311.03099.
    "dare": lambda d_MP, density, generator: at_random(d_MP, density, generator).sum(dim=0),
    "dare_ties": lambda d_MP, density, generator: elected(at_random(d_MP, density, generator)),
}


def merged(
    states: list[dict[str, Tensor]], base: dict[str, Tensor], merger: str, scale=1.0, trim="model", **how
) -> dict[str, Tensor]:
    """Returns the merged weights of models: base + scale * the merged difference. Raises InputError.

    states, base: {name: weight}; those in states are merged. trim: whether a merger is called for all weights
    of a "model" at once, or for one "tensor" after the other. how: density and generator.
    """
    found = {}
    for names in [list(states[0])] if trim == "model" else [[name] for name in states[0]]:
        base_P = torch.cat([base[name].flatten() for name in names])
        first = states[0][names[0]]  # the base may have a lower precision
        differences_MP = first.new_empty(len(states), len(base_P))
        for row_P, state in zip(differences_MP, states, strict=True):
            torch.cat([state[name].flatten() for name in names], out=row_P).sub_(base_P)
        merged_P = MERGERS[merger](differences_MP, **how)
        if getattr(merged_P, "shape", None) != base_P.shape:
            raise InputError(f"merger {merger!r} must return a tensor of shape {tuple(base_P.shape)}")
        parts = torch.add(base_P, merged_P, alpha=scale).split([base[name].numel() for name in names])
        found |= {name: part.view_as(base[name]) for name, part in zip(names, parts, strict=True)}
    return found
