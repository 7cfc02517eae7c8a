"""Grad-TAG: affinity of tasks by estimated trainings on random subsets (Li et al. 2024, arXiv 2409.06091).

EnsembleLoRA (Li et al. 2025, arXiv 2505.21930) groups tasks for low-rank experts by the same estimate. A
training from a model on all tasks is replaced by its first-order approximation: with h, the log-odds of an
answer, and z, the gradient of h projected at random, weights w have the loss log(1 + exp(-(h + z w))). A
subset of tasks is a small logistic regression in w on half of its rows. The affinity of two tasks is minus
the mean loss of their other rows over the subsets that have both. Here groups are those of average linkage,
as for other methods of this folder; the papers relax the division to a semidefinite program.

R rows, P parameters, d dimensions of the projection, S subsets of n tasks, N tasks.
"""

import numpy as np
import torch
from find_groups import Tasks
from torch import Tensor
from torch.func import grad_and_value, vmap

from dataloader.batching import micro_batches
from dataloader.gym import evenly_spread
from routing_moe.model.route_clusters import best_clusters
from routing_moe.task_choice.transfer import affinity
from task.task_emb.gradients import (
    MAX_GRADIENT_NUMBERS,
    chosen_parameters,
    fisher_batches,
    log_likelihood_of,
)

DIMENSIONS, ROUNDS = 100, 128  # in a round, each task is in one subset
STEPS, RATE, MOMENTUM, DECAY = 50, 10.0, 0.9, 1e-3  # of the regressions
AT_ONCE = 64  # rows whose gradients are computed together
LEAST_MISS = 1e-4  # of the probability of an answer from 1, where its log-odds end


def log_odds(log_p: Tensor) -> Tensor:
    return log_p - torch.log1p(-log_p.exp().clamp(max=1 - LEAST_MISS))


def features(model, rows, seed: int) -> tuple[Tensor, Tensor]:
    """Returns log-odds h (R,) of the answers, and their projected gradients z (R, d), of mean length 1."""
    model.set_attn_implementation("eager")  # vmap supports no fused attention kernel
    parameters, likelihood = chosen_parameters(model, "layers"), log_likelihood_of(model)
    P, generator = sum(p.numel() for p in parameters.values()), torch.Generator().manual_seed(seed)
    projection_Pd = torch.randn(P, DIMENSIONS, generator=generator) / DIMENSIONS**0.5
    gradients_of = vmap(grad_and_value(lambda p, row: log_odds(likelihood(p, row))), in_dims=(None, 0))
    h_R, z_Rd = torch.zeros(len(rows)), torch.zeros(len(rows), DIMENSIONS)
    batches = fisher_batches(rows, model, 0, n_parameters=MAX_GRADIENT_NUMBERS // AT_ONCE)
    for indices, batch in zip(micro_batches(*rows.lengths(), max_examples=AT_ONCE), batches, strict=True):
        gradients, h_R[indices] = gradients_of(parameters, batch)
        z_Rd[indices] = torch.cat([g.flatten(1) for g in gradients.values()], dim=1) @ projection_Pd
    return h_R, z_Rd / z_Rd.norm(dim=1).mean()


def estimated_losses(h_SR: Tensor, z_SRd: Tensor, fits_SR: Tensor) -> Tensor:
    """Returns the losses (S, R) of the rows of S subsets after each was trained on its rows of fits_SR alone.

    The logistic regressions run together, by gradient descent with momentum.
    """
    w_Sd1 = torch.zeros(len(h_SR), z_SRd.shape[2], 1)
    speed_Sd1, weight_SR1 = torch.zeros_like(w_Sd1), (fits_SR / fits_SR.sum(dim=1, keepdim=True))[..., None]
    for _ in range(STEPS):
        miss_SR1 = torch.sigmoid(-h_SR[..., None] - z_SRd @ w_Sd1)
        slope_Sd1 = DECAY * w_Sd1 - z_SRd.mT @ (weight_SR1 * miss_SR1)
        speed_Sd1 = MOMENTUM * speed_Sd1 - RATE * slope_Sd1
        w_Sd1 = w_Sd1 + speed_Sd1
    return torch.nn.functional.softplus(-h_SR - (z_SRd @ w_Sd1)[..., 0])


def affinities(h_NR: Tensor, z_NRd: Tensor, size: int, seed: int) -> np.ndarray:
    """Returns the affinities (N, N) of tasks with R rows each, NaN on the diagonal and without a subset.

    A round divides the tasks at random into subsets of `size`.
    """
    N, R = h_NR.shape
    generator, fits_R = torch.Generator().manual_seed(seed), torch.arange(R) % 2
    sums_NN, counts_NN = np.zeros((N, N)), np.zeros((N, N))
    for _ in range(ROUNDS):
        members_Sn = torch.randperm(N, generator=generator)[: N // size * size].view(-1, size)
        h_SR, z_SRd = h_NR[members_Sn].flatten(1), z_NRd[members_Sn].flatten(1, 2)
        losses_SR = estimated_losses(h_SR, z_SRd, fits_R.repeat(size).expand_as(h_SR))
        losses_Sn = losses_SR.unflatten(1, (size, R))[:, :, fits_R == 0].mean(dim=2)
        for members_n, losses_n in zip(members_Sn.numpy(), losses_Sn.numpy(), strict=True):
            sums_NN[np.ix_(members_n, members_n)] -= losses_n[:, None]
            counts_NN[np.ix_(members_n, members_n)] += 1
    np.fill_diagonal(counts_NN, 0)
    return np.divide(sums_NN, counts_NN, out=np.full((N, N), np.nan), where=counts_NN > 0)


def find(tasks: Tasks, groups: int):
    """Returns a group of each task (N,). The run has one expert; a subset has the size of two groups."""
    N = len(tasks.names)
    rows_of = [tasks.rows_of(n) for n in range(N)]
    fewest = min(map(len, rows_of))  # of each task as many rows
    chosen_NR = torch.from_numpy(np.stack([evenly_spread(rows, fewest) for rows in rows_of]))
    h_R, z_Rd = features(tasks.model, tasks.rows, tasks.seed)
    found_NN = affinities(h_R[chosen_NR], z_Rd[chosen_NR], max(2, 2 * N // groups), tasks.seed)
    return best_clusters(affinity(found_NN), [groups]).labels_N
