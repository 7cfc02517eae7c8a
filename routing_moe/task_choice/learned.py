"""A task's vector or route, learned from a few labelled rows with all experts frozen.

A vector needs a router. A route does not, so it serves mixtures with average and given routes, too. LoraHub
(Huang et al. 2023, arXiv 2307.13269) learns one weight per expert, without gradients; here each layer has its
own weights, which sum to 1, as in MHR-z (Caccia et al. 2022, arXiv 2211.03831).
"""

import dataclasses
import logging
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import Accelerator

from dataloader.encoding import EncodedExamples
from dataloader.errors import counted
from routing_moe.config.shared import Recipe
from routing_moe.model.conversion import with_shared_parameters
from routing_moe.model.selection import route_logits
from routing_moe.model.task_routing import TaskVectors
from routing_moe.model.task_vectors import ROWS_OF_ONE
from routing_moe.optim.step import Stepper
from routing_moe.task_choice.choice import TaskChoice

BATCH_SIZE = 32

log = logging.getLogger(__name__)


def learn_vector(
    model,
    task: str,
    examples: EncodedExamples,
    steps: int,
    rate: float,
    seed: int,
    accelerator: Accelerator,
) -> TaskChoice:
    """Returns a vector trained on examples of one sample of the task, from the mean of the known vectors on.

    The rest of the model is frozen. Steps are those of training, with the checkpoint's temperature, without
    exploration and weight decay, and with a rate that falls linearly to 0. The result depends on the
    arguments only (on a CPU, bit for bit). Raises TrainingDiverged, and ValueError if there is no gradient.
    """
    if not model.config.has_router:
        raise ValueError("the model has no router, so it does not use task vectors")
    if model.config.is_top_1:
        raise ValueError("the weight of a top-1 route is always 1, so it gives the vector no gradient")
    recipe = Recipe(
        learning_rate=0.0,
        task_model_lr=rate,
        train_batch_size=BATCH_SIZE,
        total_steps=steps,
        weight_decay=0.0,
        initial_tau=model.config.router_temperature,
        minimum_tau=model.config.router_temperature,
        seed=seed,
    )
    examples = dataclasses.replace(examples, task_ids_N=np.zeros(len(examples), dtype=np.int64))
    with _only_the_vector(model, task) as vector_1D:
        stepper = Stepper(model, examples, recipe, accelerator)
        for step in range(steps):
            done = stepper.step(step)
            log.debug("vector of %s: loss per token %.4f", task, done["loss"] / done["tokens"])
        learned_D = vector_1D.detach()[0].float().cpu().numpy().copy()
    words = f"vector learned from {counted(len(examples), 'example')}"
    return TaskChoice(task, "learned", words, ROWS_OF_ONE, learned_D)


def learn_route(
    model,
    task: str,
    examples: EncodedExamples,
    steps: int,
    rate: float,
    seed: int,
    accelerator: Accelerator,
) -> TaskChoice:
    """Returns a route (L, E) trained on examples of the task, starting from equal weights."""
    config = model.config
    if config.num_experts == 1:
        raise ValueError("the model has one expert, so it has no route to learn")
    size = config.num_layers, config.num_experts
    equal_LE = torch.full(size, 1 / config.num_experts, dtype=torch.float64)
    table = with_shared_parameters(model)
    table.config.task_names = [task]
    table.use_table(route_logits(equal_LE)[None])
    logits_D = learn_vector(table, task, examples, steps, rate, seed, accelerator).vector_D
    route_LE = torch.from_numpy(logits_D).view(size).softmax(dim=-1).numpy()
    words = f"route learned from {counted(len(examples), 'example')}"
    return TaskChoice(task, "learned", words, ROWS_OF_ONE, route_LE=route_LE)


@contextmanager
def _only_the_vector(model, task: str):
    """Restricts the model to one task and trains only its vector (1, D) in the block; then restores it."""
    config, table, was_training = model.config, model.task_vectors, model.training
    kept = {
        name: getattr(config, name) for name in ("task_names", "router_temperature", "exploration_epsilon")
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    is_known = [name not in config.random_vectors for name in config.task_names]
    rows_ND = table.weight.detach()
    start_1D = (rows_ND[is_known] if any(is_known) else rows_ND).mean(dim=0, keepdim=True)
    try:
        model.requires_grad_(False)
        model.task_vectors = TaskVectors.from_pretrained(start_1D, freeze=False)
        config.task_names, config.exploration_epsilon = [task], 0.0
        yield model.task_vectors.weight
    finally:
        model.task_vectors = table
        for parameter in trained:
            parameter.requires_grad_(True)
        for name, value in kept.items():
            setattr(config, name, value)
        model.train(was_training)
