"""The route of lowest loss on a few labelled rows of a task, of the routes of a mixture's trained tasks.

Nothing is trained: the cost is one forward pass over the rows for each of the K distinct routes (one per
cluster; for a router with soft routes, one per task). IFCA (Ghosh et al. 2020, arXiv 2006.04088) assigns each
client to the model with the lowest loss on its data in the same way.
"""

from collections.abc import Collection, Mapping

import numpy as np
import torch
from accelerate import Accelerator

from dataloader.encoding import EncodedExamples, encode
from routing_moe.evaluation.route_losses import losses_along
from routing_moe.model.route_clusters import groups_of_equal_rows
from routing_moe.model.task_vectors import ROWS_OF_ONE, of_sample
from routing_moe.task_choice.choice import TaskChoice, VectorTable, seen_when_stored
from routing_moe.task_choice.choose import single_experts
from routing_moe.task_choice.texts import TextSource, gym_with_inputs, train_examples


class LowestLoss:
    """Chooses among the distinct noise-free routes of a mixture's trained tasks; sets it to evaluation."""

    @torch.no_grad()
    def __init__(self, model, trained: Collection[str], accelerator: Accelerator):
        self.model, self.accelerator = model, accelerator
        table = VectorTable(model.config.task_names, model.config.random_vectors, trained)
        tasks = [task for task in model.config.task_names if task in table.seen]
        routes_NLE = model.eval().routes_for(tasks)
        self.routes = dict(zip(tasks, routes_NLE.float().cpu().numpy(), strict=True))
        routed_NRE = routes_NLE[:, model.config.routed_rows].float().cpu().numpy()
        _, first_K = np.unique(groups_of_equal_rows(routed_NRE.reshape(len(tasks), -1)), return_index=True)
        self.first_tasks, self.routes_KLE = [tasks[n] for n in first_K], routes_NLE[first_K]
        experts_K = single_experts(routed_NRE[first_K])
        self.names = self.first_tasks if experts_K is None else [f"expert {expert}" for expert in experts_K]

    def own(self, task: str) -> TaskChoice:
        """Returns the mixture's own route of a trained task. Raises KeyError for another task."""
        seen = seen_when_stored(self.model.config, task)
        return TaskChoice(task, "own", "own route", seen, route_LE=self.routes[task])

    def choose(self, rows_of: Mapping[str, tuple[EncodedExamples, str]]) -> dict[str, TaskChoice]:
        """Returns for each task the route with the lowest mean loss (nats per row) on its labelled rows."""
        rows = EncodedExamples.joined([rows for rows, _ in rows_of.values()])
        losses_RK = losses_along(self.model, rows, self.routes_KLE, self.accelerator)
        ends = np.cumsum([len(rows) for rows, _ in rows_of.values()])
        of_tasks = zip(rows_of, np.split(losses_RK, ends[:-1]), strict=True)
        return {
            task: self._best(task, rows_of[task][1], losses_rK.mean(axis=0)) for task, losses_rK in of_tasks
        }

    def _best(self, task: str, sample: str, losses_K: np.ndarray) -> TaskChoice:
        best, *others = np.argsort(losses_K, kind="stable").tolist()
        following = f"; next {losses_K[others[0]]:.2f}" if others else ""
        words = f"route of {self.names[best]} (lowest loss, {losses_K[best]:.2f}{following})"
        route_LE = self.routes[self.first_tasks[best]]
        return TaskChoice(task, "lowest_loss", words, of_sample(ROWS_OF_ONE, sample), route_LE=route_LE)


def labelled_rows(source: TextSource, task: str, tokenizer) -> tuple[EncodedExamples, str]:
    """Returns the train rows of the task's first sample, of the first gym that has some, and the sample."""
    gym = gym_with_inputs(source.gyms, task)
    sample = gym.samples(task)[0]
    rows = train_examples(gym, task, sample, most=source.limit)
    return encode(rows, tokenizer, source.text_format, {task: 0}), sample
