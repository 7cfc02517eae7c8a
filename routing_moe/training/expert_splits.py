"""Splits of experts: an idle expert takes half of the tasks of the expert with the highest loss.

Re-assignment alone can only reduce the number of experts in use: an expert whose tasks need two different
ones stays as it is, because no other expert fits better. Here an idle expert becomes its copy, and the tasks
are divided into two clusters of their gradients, after which re-assignment goes on.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator

from dataloader.encoding import EncodedExamples
from routing_moe.io.main_process import on_main
from routing_moe.model.route_clusters import centred_cosine, cluster_labels

LEAST_TASKS = 3  # of an expert that is split
AT_ONCE = (
    2  # experts that are split in the same step; the losses of the others tell little about them afterwards
)


def split_experts(
    model, examples: EncodedExamples, losses: Mapping[int, float], accelerator: Accelerator
) -> int:
    """Splits the experts with the highest mean losses, one for each idle expert; returns their number.

    model: its tasks have one expert each, in all layers. examples: those that gradients are computed from.
    losses: {task: mean loss of its held-out rows}.
    """
    losses, done = dict(losses), 0
    experts = {task: expert_of(model, task) for task in losses}
    for idle in sorted(set(range(model.config.num_experts)) - set(experts.values()))[:AT_ONCE]:
        tasks_of = {e: [task for task in experts if experts[task] == e] for e in set(experts.values())}
        means = {
            e: np.mean([losses[task] for task in own])
            for e, own in tasks_of.items()
            if len(own) >= LEAST_TASKS
        }
        means = {e: mean for e, mean in means.items() if mean > 0}
        if not means:
            break
        worst = max(means, key=means.get)
        divided = tasks_of[worst]
        halves = on_main(accelerator, partial(halved, model, examples, divided))
        copy_expert(model, worst, idle)
        for task, half in zip(divided, halves, strict=True):
            losses[task] = 0.0  # both halves are new, and not split again in this step
            if half:
                experts[task] = idle
                model.task_routes[task] = torch.eye(model.config.num_experts)[idle].to(model.task_routes)
        done += 1
    return done


def expert_of(model, task: int) -> int:
    """Returns the expert of a task in the first layer with experts."""
    return int(model.task_routes[task, model.config.routed_rows[0]].argmax())


def halved(model, examples: EncodedExamples, tasks: list[int]) -> list[int]:
    """Returns 0 or 1 for each task: two clusters of the gradients of their losses by the token embeddings."""
    weight, gradients = model.model.shared.weight, []
    model.eval()
    for task in tasks:
        indices = np.flatnonzero(examples.task_ids_N == task)
        batch = examples.collate(indices, pad_token_id=model.config.pad_token_id)
        batch = {name: t.to(model.device) for name, t in batch.items()}
        loss = model(**batch, loss_only=True).loss
        (gradient,) = torch.autograd.grad(loss, weight)
        gradients.append(gradient.flatten().double().cpu().numpy())
    return cluster_labels(centred_cosine(np.stack(gradients)), 2).tolist()


@torch.no_grad()
def copy_expert(model, source: int, target: int) -> None:
    """Gives an expert of every layer the weights of another one."""
    for layer in model.routed_layers():
        layer.experts[target].load_state_dict(layer.experts[source].state_dict())
