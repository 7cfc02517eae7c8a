"""The loss of examples along several routes, by which a task finds the route that fits it."""

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from dataloader.batching import assign_to_ranks, micro_batches
from dataloader.encoding import EncodedExamples
from routing_moe.evaluation.batches import MOST_IN_LOSS
from routing_moe.evaluation.option_ranking import encoded, mean_log_likelihood
from routing_moe.evaluation.pool import batch_of
from routing_moe.optim.micro_batches import default_overhead


@torch.no_grad()
def losses_along(
    model, examples: EncodedExamples, routes_KLE: Tensor, accelerator: Accelerator, quiet: bool = True
) -> np.ndarray:
    """Returns the losses (R, K) float64 of R examples along each of K routes.

    The loss is the negative log-likelihood of the first accepted answer in nats, without label smoothing.
    There is one forward pass per route over all examples, which share batches whatever their tasks; a route
    with an equivalent plain BART has the cost of a plain BART. Processes share the batches, and all get all
    losses. Leaves the model in evaluation mode.
    """
    model.eval()
    sources_R, targets_R = examples.source_lengths_N, examples.target_lengths_N
    groups = micro_batches(sources_R, targets_R, MOST_IN_LOSS, overhead_tokens=default_overhead(model.device))
    costs = [int((sources_R + targets_R)[group].sum()) for group in groups] * len(routes_KLE)
    own = assign_to_ranks(costs, accelerator.num_processes)[accelerator.process_index]
    losses_KR = torch.zeros(len(routes_KLE), len(examples), dtype=torch.float64)
    for place in tqdm(sorted(own), desc="losses along routes", unit="batch", leave=False, disable=quiet):
        k, g = divmod(place, len(groups))
        losses_KR[k, torch.from_numpy(groups[g])] = _losses(
            model, examples, groups[g], routes_KLE[k], accelerator
        )
    if accelerator.num_processes > 1:
        losses_KR = accelerator.reduce(losses_KR.to(accelerator.device), reduction="sum").cpu()
    return losses_KR.T.numpy()


def means_by_group(losses_RK: np.ndarray, groups_R: np.ndarray) -> np.ndarray:
    """Returns the mean losses (G, K) of groups of rows. groups_R: the group of each row, from 0 to G - 1."""
    return np.stack([losses_RK[groups_R == g].mean(axis=0) for g in range(groups_R.max() + 1)])


def _losses(
    model, examples: EncodedExamples, indices: np.ndarray, route_LE: Tensor, accelerator: Accelerator
) -> Tensor:
    """Returns the losses (b,) float64 of a batch along one route, on the CPU."""
    batch = batch_of(examples, indices, model)
    labels_bT = batch.pop("labels")
    bart, routes_bLE = model, route_LE[None].expand(len(indices), -1, -1)
    if model.has_plain_equivalent(route_LE[None]):
        bart, routes_bLE = model.to_bart(route_LE), None
    states_bSD = encoded(bart, batch, routes_bLE, accelerator.autocast)
    with accelerator.autocast():
        mean_b = mean_log_likelihood(bart, states_bSD, batch["attention_mask"], labels_bT, routes_bLE)
    return -(mean_b.cpu().double() * torch.from_numpy(examples.target_lengths(indices)))
