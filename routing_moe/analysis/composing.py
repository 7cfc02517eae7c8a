"""Composes the routes of many experts from few: those that share an encoder, by losses along mixed routes.

A mixture with an expert for each cluster of tasks has experts that descend from the same weights. Along the
encoder of expert i and the decoder of expert j, the rows of cluster c have the mean loss M[c, i, j]. Experts
whose encoders do the same for all clusters and decoders have similar profiles M[:, i, :], and are divided
into groups of equal size that share the encoder's expert. In the decoder's layers, the clusters of a group
get different words (`route_codes.grouped_words`).

K clusters of tasks, which are routes; E experts of a layer of the new mixture; L layers; R rows.
"""

import numpy as np
import torch
from accelerate import Accelerator

from dataloader.encoding import EncodedExamples
from dataloader.errors import InputError
from dataloader.progress import ProgressBar
from routing_moe.evaluation.route_losses import losses_along, means_by_group
from routing_moe.model.route_clusters import balanced_groups, centred_cosine
from routing_moe.model.route_codes import grouped_words


def composed_routes(
    model, examples: EncodedExamples, num_experts: int, accelerator: Accelerator
) -> tuple[dict[str, list[int]], np.ndarray]:
    """Returns {task: experts by layer} of the examples' tasks, and the encoder's group (K,) of each cluster.

    Raises InputError if a task has several experts, the mixture has no more experts in use than
    `num_experts`, or there are too few routes of that many experts.
    """
    config, tasks_N = model.config, np.unique(examples.task_ids_N)
    routes_KLE, cluster_N = clusters_of(model, tasks_N)
    K = len(routes_KLE)
    if num_experts >= K:
        raise InputError(f"--num_experts is {num_experts}; the mixture has {K} experts in use, give fewer")
    clusters_R = cluster_N[np.searchsorted(tasks_N, examples.task_ids_N)]
    profiles_KD = encoder_profiles(model, examples, routes_KLE, clusters_R, accelerator)
    group_K = balanced_groups(centred_cosine(profiles_KD), num_experts)
    try:
        words_KL = grouped_words(group_K, config.encoder_layers, config.decoder_layers, num_experts)
    except ValueError as error:
        raise InputError(f"--num_experts {num_experts}: {error}") from None
    names = [config.task_names[n] for n in tasks_N]
    return {name: words_KL[k].tolist() for name, k in zip(names, cluster_N, strict=True)}, group_K


def clusters_of(model, tasks_N: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """Returns the different routes (K, L, E) of tasks with one expert each, and that of each task (N,)."""
    config = model.config
    if config.route_source != "fixed" or len(config.routed_rows) < config.num_layers:
        raise InputError("only a mixture with given routes and experts in all layers can be composed")
    routes_KLE, cluster_N = model.distinct_routes(tasks_N)
    if not model.are_single(routes_KLE):
        raise InputError("only a mixture with one expert for each task, in all layers, can be composed")
    return routes_KLE, cluster_N


def encoder_profiles(
    model,
    examples: EncodedExamples,
    routes_KLE: torch.Tensor,
    clusters_R: np.ndarray,
    accelerator: Accelerator,
) -> np.ndarray:
    """Returns the profiles (K, K * K): the mean losses M[c, i, j], for each encoder i. K^2 forward passes."""
    split, profiles = model.config.encoder_rows, []
    for route_LE in ProgressBar(routes_KLE, desc="losses along encoders", unit="encoder"):
        mixed_KLE = routes_KLE.clone()
        mixed_KLE[:, :split] = route_LE[:split]
        losses_RK = losses_along(model, examples, mixed_KLE, accelerator)
        profiles.append(means_by_group(losses_RK, clusters_R).flatten())
    return np.stack(profiles)
