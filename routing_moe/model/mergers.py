"""Mergers: the weight differences of several models from the one that they all started from become one.

A merger is called with differences_MP (M models, P weights), density and generator; it returns the merged
difference (P,). density: the share of the differences that it keeps. generator: of random numbers; None: that
of torch. They are those of `peft.utils.merge_utils`, which calls `dare` dare_linear.
"""

import torch
from torch import Tensor

from dataloader.errors import InputError
from routing_moe.config.choices import MERGERS


def largest(differences_MP: Tensor, density: float) -> Tensor:
    """Returns the differences, 0 for all but the largest magnitudes of each model."""
    pruned_MP = torch.zeros_like(differences_MP)
    for pruned_P, row_P in zip(pruned_MP, differences_MP, strict=True):  # a model at a time saves memory
        chosen_K = row_P.abs().topk(int(density * len(row_P)), sorted=False).indices
        pruned_P[chosen_K] = row_P[chosen_K]
    return pruned_MP


def at_random(differences_MP: Tensor, density: float, generator: torch.Generator | None) -> Tensor:
    """Returns the differences, 0 for random ones, the others divided by the density."""
    draws = (torch.bernoulli(torch.full_like(d_P, density), generator=generator) for d_P in differences_MP)
    return torch.stack([d_P * draw_P / density for d_P, draw_P in zip(differences_MP, draws, strict=True)])


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
        vectors = (torch.cat([state[name].flatten() for name in names]) for state in (base, *states))
        base_P = next(vectors)
        differences_MP = torch.stack([vector_P - base_P for vector_P in vectors])
        merged_P = MERGERS[merger](differences_MP, **how)
        if getattr(merged_P, "shape", None) != base_P.shape:
            raise InputError(f"merger {merger!r} must return a tensor of shape {tuple(base_P.shape)}")
        parts = torch.add(base_P, merged_P, alpha=scale).split([base[name].numel() for name in names])
        found |= {name: part.view_as(base[name]) for name, part in zip(names, parts, strict=True)}
    return found
