"""A task's vector or route by a few labelled rows: learned with all experts frozen, or that of lowest loss.

A vector needs a router, a route does not: each layer has weights that sum to 1, as in MHR-z (Caccia et al.
2022, arXiv 2211.03831). The choice by lowest loss trains nothing: it costs a forward pass over the rows for
each of the K distinct routes of the trained tasks, as in IFCA (Ghosh et al. 2020, arXiv 2006.04088).
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator

from dataloader.encoded import EncodedExamples
from dataloader.encoding import encode
from dataloader.errors import counted
from routing_moe.config.shared import StepSettings
from routing_moe.evaluation.route_losses import losses_along
from routing_moe.model.conversion import with_shared_parameters
from routing_moe.model.route_clusters import groups_of_equal_rows, single_experts
from routing_moe.model.selection import route_logits
from routing_moe.model.task_routing import TaskVectors
from routing_moe.model.task_vectors import ROWS_OF_ONE, of_sample
from routing_moe.optim.step import Stepper
from routing_moe.task_choice.choice import Resolver, TaskChoice
from routing_moe.task_choice.texts import TextSource, train_examples

BATCH_SIZE = 32


def learn_vector(
    model, task: str, examples: EncodedExamples, steps: int, rate: float, seed: int, accelerator: Accelerator
) -> TaskChoice:
    """Returns a vector trained on examples of one sample of the task, from the mean of the known vectors on.

    The rest of the model is frozen. Steps are those of training, with the checkpoint's temperature, without
    exploration and weight decay, and with a rate that falls linearly to 0. The result depends on the
    arguments only (on a CPU, bit for bit). The router is not top-1: its weights, always 1, have no gradient.
    """
    alone, tau = with_shared_parameters(model), model.config.router_temperature
    is_known = [name not in model.config.random_vectors for name in model.config.task_names]
    rows_ND = model.task_vectors.weight.detach()
    start_1D = (rows_ND[is_known] if any(is_known) else rows_ND).mean(dim=0, keepdim=True)
    alone.config.task_names, alone.config.exploration_epsilon = [task], 0.0
    rates = dict(learning_rate=0.0, task_model_lr=rate, weight_decay=0.0, initial_tau=tau, minimum_tau=tau)
    step_settings = StepSettings(**rates, train_batch_size=BATCH_SIZE, total_steps=steps, seed=seed)
    examples = replace(examples, task_ids_N=np.zeros(len(examples), dtype=np.int64))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.requires_grad_(False)
        alone.task_vectors = TaskVectors.from_pretrained(start_1D, freeze=False)
        for _ in Stepper(alone, examples, step_settings, accelerator).run(steps):
            pass
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    learned_D = alone.task_vectors.weight.detach()[0].float().cpu().numpy().copy()
    description = f"vector learned from {counted(len(examples), 'example')}"
    return TaskChoice(task, "learned", description, ROWS_OF_ONE, vector_D=learned_D)


def learn_route(
    model, task: str, examples: EncodedExamples, steps: int, rate: float, seed: int, accelerator: Accelerator
) -> TaskChoice:
    """Returns a route (L, E) trained on examples of the task, starting from equal weights."""
    config = model.config
    size = config.num_layers, config.num_experts
    equal_LE = torch.full(size, 1 / config.num_experts, dtype=torch.float64)
    table = with_shared_parameters(model)
    table.config.task_names = [task]
    table.use_table(route_logits(equal_LE)[None])
    logits_D = learn_vector(table, task, examples, steps, rate, seed, accelerator).vector_D
    route_LE = torch.from_numpy(logits_D).view(size).softmax(dim=-1).numpy()
    description = f"route learned from {counted(len(examples), 'example')}"
    return TaskChoice(task, "learned", description, ROWS_OF_ONE, route_LE=route_LE)


def learn(
    model, task: str, examples: EncodedExamples, steps: int, rate: float | None, sample=None, **how
) -> TaskChoice:
    """Returns a learned vector, or a route where no vector has a gradient. rate: None: 0.01, or 0.1."""
    by_vector = model.config.has_router and not model.config.is_top_1
    learning, usual = (learn_vector, 0.01) if by_vector else (learn_route, 0.1)
    choice = learning(model, task, examples, steps, usual if rate is None else rate, **how)
    return replace(choice, seen=of_sample(choice.seen, sample)) if sample else choice


# ---- the route of lowest loss


class LowestLoss:
    """Chooses among the distinct noise-free routes of a mixture's trained tasks; sets it to evaluation."""

    @torch.no_grad()
    def __init__(self, model, trained: Collection[str], accelerator: Accelerator):
        self.model, self.accelerator = model, accelerator
        seen = Resolver.of(model.config, trained).seen
        tasks = [task for task in model.config.task_names if task in seen]
        routes_NLE = model.eval().routes_for(tasks)
        self.routes = dict(zip(tasks, routes_NLE.float().cpu().numpy(), strict=True))
        routed_NRE = routes_NLE[:, model.config.routed_rows].float().cpu().numpy()
        _, first_K = np.unique(groups_of_equal_rows(routed_NRE.reshape(len(tasks), -1)), return_index=True)
        self.first_tasks, self.routes_KLE = [tasks[n] for n in first_K], routes_NLE[first_K]
        experts_K = single_experts(routed_NRE[first_K])
        self.names = self.first_tasks if experts_K is None else [f"expert {expert}" for expert in experts_K]

    def choose(self, rows_of: Mapping[str, tuple[EncodedExamples, str]]) -> dict[str, TaskChoice]:
        """Returns for each task the route with the lowest mean loss (nats per row) on its labelled rows."""
        rows = EncodedExamples.joined([rows for rows, _ in rows_of.values()])
        losses_RK = losses_along(self.model, rows, self.routes_KLE, self.accelerator)
        ends, choices = np.cumsum([len(rows) for rows, _ in rows_of.values()]), {}
        for task, losses_rK in zip(rows_of, np.split(losses_RK, ends[:-1]), strict=True):
            losses_K, seen = losses_rK.mean(axis=0), of_sample(ROWS_OF_ONE, rows_of[task][1])
            best, *others = np.argsort(losses_K, kind="stable").tolist()
            following = f"; next {losses_K[others[0]]:.2f}" if others else ""
            description = f"route of {self.names[best]} (lowest loss, {losses_K[best]:.2f}{following})"
            route_LE = self.routes[self.first_tasks[best]]
            choices[task] = TaskChoice(task, "lowest_loss", description, seen, route_LE=route_LE)
        return choices


def labelled_rows(
    source: TextSource, task: str, sample: str | None, tokenizer
) -> tuple[EncodedExamples, str]:
    """Returns train rows of a sample, None: the first, of the first gym that has some, and the sample."""
    gym = source.gym_of(task)
    sample = sample or gym.samples(task)[0]
    rows = train_examples(gym, task, sample, most=source.limit)
    return encode(rows, tokenizer, source.text_format, {task: 0}), sample
