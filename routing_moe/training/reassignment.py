"""Re-assignment: during training, tasks move to the route with the lowest loss on their held-out rows.

Hard expectation maximisation: training fits the experts to the tasks on their routes, and re-assignment fits
the routes to the experts. A route that no task takes is no longer a candidate, so the number of routes in use
only falls, except by splits of experts (`expert_splits.py`). This needs experts that have begun to differ in
what they can do: between copies of an untrained model the lowest loss is an accident, and all tasks collapse
onto few.

IFCA (Ghosh et al. 2020, arXiv 2006.04088) alternates in this way, in federated learning, between assigning
clients to the model with the lowest loss and training the models. What differs here: tasks of a few rows, a
loss on rows that the mixture is not trained on meanwhile, and experts that share embeddings and start from
the weights of one dense model, along clusters of its gradients.

N tasks, K different routes, R held-out rows, L layers, E experts of a layer.
"""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from dataloader.atomic_files import write_text
from dataloader.encoding import EncodedExamples
from dataloader.errors import InputError, in_short
from routing_moe.config.train import TrainSettings
from routing_moe.evaluation.route_losses import losses_along, means_by_group
from routing_moe.io.run_folder import REASSIGNED_ROUTES_FILE, REASSIGNMENTS_FILE
from routing_moe.model.flops import rows_flops
from routing_moe.task_choice.clusters import RouteClusters
from routing_moe.training.expert_splits import split_experts

log = logging.getLogger(__name__)


class Reassignment:
    """Moves the tasks of a model with given one-hot routes, in a training that ends with step `end`.

    steps: after which tasks may move. Raises InputError if there are none, routes are not one-hot, or a task
    has too few rows to hold some out.
    """

    def __init__(
        self, model, examples: EncodedExamples, settings: TrainSettings, accelerator: Accelerator, end: int
    ):
        self.model, self.settings, self.accelerator = model, settings, accelerator
        self.steps = settings.reassignments(end)
        is_held_R = held_out(examples, settings.reassign_held_out)
        self.all_examples = examples
        self.trained_examples = examples.subset(np.flatnonzero(~is_held_R))
        self.held_examples = examples.subset(np.flatnonzero(is_held_R))
        self.tasks_N = np.unique(examples.task_ids_N)
        self._check(end)

    def _check(self, end: int) -> None:
        if not self.steps:
            raise InputError(
                f"--reassign_from is {self.settings.reassign_from}, which leaves no step for a re-assignment "
                f"in a training of {end} steps (--num_train_epochs)"
            )
        if not self.model.is_one_hot(self.model.task_routes[self.tasks_N]):
            raise InputError("--reassign_every moves tasks between one-hot routes, but a route mixes experts")
        if self.settings.reassign_splits and not self._is_single():
            log.info("note: no expert is split (--reassign_splits): tasks have several experts")
        counts = np.bincount(self.held_examples.task_ids_N, minlength=self.tasks_N.max() + 1)
        if lacking := [self.model.config.task_names[n] for n in self.tasks_N if not counts[n]]:
            raise InputError(
                f"--reassign_held_out {self.settings.reassign_held_out:g} holds out no train row of "
                f"{in_short(lacking)} (those of equal input together); hold out more"
            )

    def _is_single(self) -> bool:
        return self.model.are_single(self.model.task_routes[self.tasks_N])

    def examples_at(self, step: int) -> EncodedExamples:
        """Returns the examples that are trained on after a step: all, once no task moves any more."""
        return self.all_examples if step >= self.steps[-1] else self.trained_examples

    def move(self, step: int) -> dict:
        """Moves the tasks; returns the row of the table. All processes compute the same."""
        routes_KLE, route_N = self.model.distinct_routes(self.tasks_N)
        losses_RK = losses_along(self.model, self.held_examples, routes_KLE, self.accelerator)
        tasks_R = np.searchsorted(self.tasks_N, self.held_examples.task_ids_N)
        means_NK = means_by_group(losses_RK, tasks_R)
        chosen_N = best_routes(means_NK, route_N)
        self.model.task_routes[self.tasks_N] = routes_KLE[chosen_N]
        every_N, splits, flops = np.arange(len(chosen_N)), 0, self.flops(len(routes_KLE))
        if step in self.steps[1:-1] and self.settings.reassign_splits and self._is_single():
            losses = dict(zip(self.tasks_N.tolist(), means_NK[every_N, chosen_N].tolist(), strict=True))
            most = self.settings.reassign_splits
            splits, of_splits = split_experts(
                self.model, self.trained_examples, losses, most, self.accelerator
            )
            flops += of_splits
        self._move_other_tasks(routes_KLE, route_N)
        return {
            "step": step,
            "moved": int((chosen_N != route_N).sum()),
            "tasks": len(chosen_N),
            "routes_before": len(routes_KLE),
            "splits": splits,
            "routes": len(self.model.distinct_routes(self.tasks_N)[0]),
            "loss_before": float(means_NK[every_N, route_N].mean()),
            "loss_best": float(means_NK.min(axis=1).mean()),
            "loss": float(means_NK[every_N, chosen_N].mean()),
            "flops": flops,
        }

    def _move_other_tasks(self, before_KLE: torch.Tensor, before_N: np.ndarray) -> None:
        """Moves tasks that are not trained, with their vectors to the nearest cluster, or else with others.

        Without vectors, they get the route that most trained tasks of their route have now. Before: the
        routes in use, and that of each trained task.
        """
        config, routes_NLE = self.model.config, self.model.task_routes
        others = sorted(set(range(len(config.task_names))).difference(self.tasks_N.tolist()))
        if config.route_parts:
            clusters = RouteClusters(self.model)
            for n in others:
                task = config.task_names[n]
                nearest = clusters.nearest(task, clusters.vectors[task], config.vectors_seen or "")
                routes_NLE[n] = torch.from_numpy(nearest.route_LE)
            return
        now_KLE, now_N = self.model.distinct_routes(self.tasks_N)
        for n in others:
            (same,) = (before_KLE == routes_NLE[n]).flatten(1).all(dim=1).cpu().numpy().nonzero()
            if len(same):  # else no trained task had its route
                routes_NLE[n] = now_KLE[np.bincount(now_N[before_N == same[0]]).argmax()]

    def flops(self, routes: int) -> int:
        """Returns the FLOPs of the held-out rows along a number of routes: forward passes only."""
        return rows_flops(self.model.config, self.held_examples) * routes

    def total_flops(self, step: int, rows: list[dict]) -> int:
        """Returns the FLOPs of all re-assignments; those of later ones with the routes in use, unsplit."""
        remaining = sum(later > step for later in self.steps)
        return sum(row["flops"] for row in rows) + remaining * self.flops(
            len(self.model.distinct_routes(self.tasks_N)[0])
        )

    # ---- files

    def write(self, folder: Path, rows: list[dict]) -> None:
        """Writes the table and, for --task_routes, the routes, with experts numbered without gaps."""
        write_text(folder / REASSIGNMENTS_FILE, pd.DataFrame(rows).to_csv(index=False))
        write_text(folder / REASSIGNED_ROUTES_FILE, json.dumps(self.numbered_routes(), indent=1))

    def numbered_routes(self) -> dict[str, int | list[int]]:
        """Returns {task: its expert, or experts by layer}, without the experts that no trained task takes."""
        config = self.model.config
        experts_NL = self.model.task_routes.argmax(dim=-1).cpu().numpy()
        without = [row for row in range(experts_NL.shape[1]) if row not in config.routed_rows]
        experts_NL[:, without] = experts_NL[:, config.routed_rows[:1]]
        used_NL = experts_NL[self.tasks_N]
        numbers = [{e: i for i, e in enumerate(np.unique(column))} for column in used_NL.T]
        routes = {}
        for task, experts_L in zip(config.task_names, experts_NL.tolist(), strict=True):
            if all(e in own for e, own in zip(experts_L, numbers, strict=True)):
                route = [own[e] for e, own in zip(experts_L, numbers, strict=True)]
                routes[task] = route[0] if len(set(route)) == 1 else route
        return routes


def held_out(examples: EncodedExamples, share: float) -> np.ndarray:
    """Returns whether each row is held out (R,): evenly spread, a share of each task's rows, rounded down.

    With a share of 1/4, it is every fourth row of a task.
    Rows of a task with equal input are held out together, because its samples may overlap. Equal: with the
    same tokens for the encoder, so also after truncation. The inputs with the most rows come first, so that
    single rows fill up the share. It is never exceeded; what it lacks is less than the rows of one input.
    """
    rows_of: dict[int, dict[bytes, list[int]]] = {}
    for row, task in enumerate(examples.task_ids_N.tolist()):
        rows_of.setdefault(task, {}).setdefault(examples.sources[row].tobytes(), []).append(row)
    is_held_R = np.zeros(len(examples), dtype=bool)
    for groups in rows_of.values():
        read = held = 0
        for rows in sorted(groups.values(), key=len, reverse=True):  # keeps the order of groups of a size
            read += len(rows)
            if held + len(rows) <= read * share + 1e-9:
                is_held_R[rows] = True
                held += len(rows)
    return is_held_R


def best_routes(means_NK: np.ndarray, route_N: np.ndarray) -> np.ndarray:
    """Returns the route of each task (N,): its own if no other has a lower mean loss, else the best."""
    own_N = means_NK[np.arange(len(route_N)), route_N]
    return np.where(means_NK.min(axis=1) < own_N, means_NK.argmin(axis=1), route_N)
