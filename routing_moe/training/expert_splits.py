"""Splits of experts: an idle expert takes a part of the tasks of the expert with the highest loss.

Re-assignment alone can only reduce the number of experts in use: an expert whose tasks need two different
ones stays as it is, because no other expert fits better. Here an idle expert becomes its copy, and the tasks
are divided into two clusters of their gradients, after which re-assignment goes on.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from dataloader.batching import micro_batches
from dataloader.encoding import EncodedExamples
from routing_moe.evaluation.batches import MOST_IN_LOSS
from routing_moe.io.main_process import on_main
from routing_moe.model.flops import BY_EMBEDDINGS, rows_flops
from routing_moe.model.route_clusters import centred_cosine, cluster_labels
from routing_moe.optim.micro_batches import default_overhead

LEAST_TASKS = 3  # of an expert that is split
MOST_DIMENSIONS = 2**16  # of a gradient; larger ones are projected


def split_experts(
    model, examples: EncodedExamples, losses: Mapping[int, float], most: int, accelerator: Accelerator
) -> tuple[int, int]:
    """Splits the experts with the highest mean losses, one for each idle expert; returns (number, FLOPs).

    model: its tasks have one expert each, in all layers. examples: those that gradients are computed from.
    losses: {task: mean loss of its held-out rows}. most: splits. An expert is split at most once.
    """
    tasks_of: dict[int, list[int]] = {}
    for task in losses:
        tasks_of.setdefault(expert_of(model, task), []).append(task)
    large = {
        e: np.mean([losses[task] for task in own]) for e, own in tasks_of.items() if len(own) >= LEAST_TASKS
    }
    idle = sorted(set(range(model.config.num_experts)) - set(tasks_of))[:most]
    pairs = list(zip(idle, sorted(large, key=large.get, reverse=True), strict=False))
    flops = 0
    for target, source in pairs:
        tasks = tasks_of[source]
        labels = on_main(accelerator, partial(two_clusters, model, examples, tasks, accelerator))
        copy_expert(model, source, target)
        moved = [task for task, label in zip(tasks, labels, strict=True) if label]
        model.task_routes[moved] = torch.eye(model.config.num_experts)[target].to(model.task_routes)
        rows = np.flatnonzero(np.isin(examples.task_ids_N, tasks))
        flops += rows_flops(model.config, examples.subset(rows), BY_EMBEDDINGS)
    return len(pairs), flops


def expert_of(model, task: int) -> int:
    """Returns the expert of a task in the first layer with experts."""
    return int(model.task_routes[task, model.config.routed_rows[0]].argmax())


def two_clusters(model, examples: EncodedExamples, tasks: list[int], accelerator: Accelerator) -> list[int]:
    """Returns 0 or 1 for each task: clusters of the gradients of their losses by the token embeddings."""
    model.eval()
    gradients = [
        projected(
            embedding_gradient(model, examples, np.flatnonzero(examples.task_ids_N == task), accelerator)
        )
        for task in tasks
    ]
    return cluster_labels(centred_cosine(torch.stack(gradients).cpu().numpy()), 2).tolist()


def embedding_gradient(
    model, examples: EncodedExamples, rows: np.ndarray, accelerator: Accelerator
) -> Tensor:
    """Returns the gradient (V * D,) of the loss of the rows by the token embeddings."""
    weight = model.model.shared.weight
    is_trained, total = weight.requires_grad, torch.zeros_like(weight)
    weight.requires_grad_(True)  # low-rank experts may share a frozen BART
    lengths = examples.source_lengths_N[rows], examples.target_lengths_N[rows]
    for group in micro_batches(*lengths, MOST_IN_LOSS, overhead_tokens=default_overhead(model.device)):
        batch = examples.collate(rows[group], pad_token_id=model.config.pad_token_id)
        batch = {name: t.to(model.device) for name, t in batch.items()}
        with accelerator.autocast():
            loss = model(**batch, loss_only=True).loss
        total += torch.autograd.grad(loss, weight)[0]
    weight.requires_grad_(is_trained)
    return total.flatten()


def projected(gradient_D: Tensor) -> Tensor:
    """Returns a gradient; a large one as sums of coordinates with random signs in MOST_DIMENSIONS buckets.

    Products of such sums are those of the gradients in expectation (count sketch: Charikar, Chen and
    Farach-Colton 2002), so that many tasks of a large vocabulary fit into memory.
    """
    if len(gradient_D) <= MOST_DIMENSIONS:
        return gradient_D
    generator = torch.Generator().manual_seed(0)
    buckets_D = torch.randint(MOST_DIMENSIONS, gradient_D.shape, generator=generator)
    signs_D = 2 * torch.randint(2, gradient_D.shape, generator=generator) - 1
    return torch.zeros(MOST_DIMENSIONS).index_add_(0, buckets_D, gradient_D.float().cpu() * signs_D)


@torch.no_grad()
def copy_expert(model, source: int, target: int) -> None:
    """Gives an expert of every layer the weights of another one."""
    for layer in model.routed_layers():
        layer.copy_expert(source, target)
