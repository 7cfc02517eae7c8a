"""Task vectors for unseen tasks, for which the router computes routes.

    auto     a given vector, else the task's row of the checkpoint unless it is random and untrained, else
             nearest
    stored   the task's row of the checkpoint
    nearest  a copy of the vector of the seen task with the most similar text
    learned  a vector trained on a few examples of the task, with router and experts frozen

Similarity is the cosine of text vectors (`text_vectors.py`) after subtraction of the mean over the seen
tasks, because encoder states of all texts have a large component in common.
"""

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import Accelerator

from dataloader.encoding import EncodedExamples
from routing_moe.config.shared import Recipe
from routing_moe.evaluation.vector_sources import (
    TextSource,
    VectorChoice,
    VectorTable,
    seen_when_stored,
)
from routing_moe.model.modeling import TaskVectors
from routing_moe.model.task_vectors import (
    ROWS_OF_ONE,
    UNKNOWN,
)
from routing_moe.optim.step import Stepper

log = logging.getLogger(__name__)


# ---- stored or nearest


def choose_vectors(
    model,
    tokenizer,
    tasks: Iterable[str],
    source: str,
    trained: Iterable[str],
    texts: TextSource,
    quiet=False,
    given: Mapping[str, np.ndarray] | None = None,
    given_seen: str = UNKNOWN,
) -> list[VectorChoice]:
    """Returns the vector of each task by the rule of `source`: "auto", "stored" or "nearest".

    trained: the train tasks of the split. given: {task: vector (D,)}, which take precedence. given_seen: the
    data that these are based on. Does not change the model; `with_vectors` applies the choices. Raises
    KeyError for a task without a row if its row is needed, and ValueError if there is no neighbour
    (`TextSource.faults` reports this before).
    """
    tasks = list(tasks)
    table = VectorTable.of(model.config.task_names, model.config.random_vectors, trained)
    given = given or {}
    needing = table.needing_nearest([task for task in tasks if task not in given], source)
    text_of = texts.vectors({*needing, *table.seen}, model, tokenizer, quiet) if needing else {}
    candidates = {task: text_of[task] for task in sorted(table.seen) if task in text_of}
    choices = []
    for task in tasks:
        if task in given:
            choices.append(VectorChoice(task, "given", given[task], given_seen))
            continue
        if task not in needing:
            seen = seen_when_stored(model.config, task)
            choices.append(VectorChoice(task, "stored", stored_vector(model, task), seen))
            continue
        choices.append(choose_nearest(model, task, text_of[task], candidates, texts.seen_of(task)))
    return choices


def choose_nearest(
    model, task: str, text_D: np.ndarray, candidates: Mapping[str, np.ndarray], seen: str
) -> VectorChoice:
    """Returns the stored vector of the candidate task with the most similar text vector (D,)."""
    neighbour, similarity = nearest_task(text_D, candidates)
    return VectorChoice(task, "nearest", stored_vector(model, neighbour), seen, neighbour, similarity)


def nearest_task(text_D: np.ndarray, candidates: Mapping[str, np.ndarray]) -> tuple[str, float]:
    """Returns (name, cosine) of the most similar candidate (of several, the first) after centring.

    Vectors are centred by subtraction of the candidates' mean; for a single candidate the cosine is 0. Raises
    ValueError if there is no candidate.
    """
    if not candidates:
        raise ValueError("there is no task with both a vector and a text to be the nearest")
    vectors_ND = np.stack(list(candidates.values())).astype(np.float64)
    mean_D = vectors_ND.mean(axis=0)
    vectors_ND, text_D = vectors_ND - mean_D, text_D.astype(np.float64) - mean_D
    lengths_N = np.linalg.norm(vectors_ND, axis=1) * np.linalg.norm(text_D)
    cosines_N = np.divide(vectors_ND @ text_D, lengths_N, out=np.zeros(len(candidates)), where=lengths_N > 0)
    best = int(cosines_N.argmax())
    return list(candidates)[best], float(cosines_N[best])


def stored_vector(model, task: str) -> np.ndarray:
    """Returns a copy of the task's row (D,), float32. Raises KeyError if it has none."""
    row = int(model.task_ids([task])[0])
    return model.task_vectors.weight.detach()[row].float().cpu().numpy().copy()


def with_vectors(model, vectors: Mapping[str, np.ndarray]):
    """Returns the same model with these vectors (D,) as the rows of the named tasks.

    A new name gets a new row after the others; none of the names counts as random any more. The rows are a
    new parameter, so optimizers must be created afterwards. Raises ValueError for a model without a router,
    and for a vector of another width or with a value that is not finite.
    """
    if not model.config.has_router:
        raise ValueError("the model has no router, so it does not use task vectors")
    D, old = model.config.router_input_dim, model.task_vectors.weight
    rows = dict(zip(model.config.task_names, old.detach(), strict=True))
    for task, vector_D in vectors.items():
        new_D = torch.as_tensor(vector_D, dtype=old.dtype, device=old.device)
        if new_D.shape != (D,) or not new_D.isfinite().all():
            raise ValueError(f"the vector of {task} must have {D} finite numbers")
        rows[task] = new_D
    weight_ND = torch.stack(list(rows.values()))
    model.task_vectors = TaskVectors.from_pretrained(weight_ND, freeze=not old.requires_grad)
    model.config.task_names = list(rows)
    model.config.random_vectors = [task for task in model.config.random_vectors if task not in vectors]
    return model


# ---- learned


def learn_vector(
    model,
    task: str,
    examples: EncodedExamples,
    steps: int,
    rate: float,
    seed: int,
    accelerator: Accelerator,
    batch_size: int = 32,
) -> VectorChoice:
    """Returns a vector trained on examples of the task, starting from the mean of the known vectors.

    The rest of the model is frozen. Steps are those of training (the loss with routes drawn in the router's
    mode), with the checkpoint's temperature, without exploration and weight decay, and with a rate that falls
    linearly to 0. All examples are assumed to be of the task and of one sample. The result depends on the
    arguments only (on a CPU, bit for bit). Raises ValueError if the model has no router or its mode gives the
    vector no gradient, and TrainingDiverged.
    """
    if not model.config.has_router:
        raise ValueError("the model has no router, so it does not use task vectors")
    if model.config.router_mode == "top_k" and model.config.router_top_k == 1:
        raise ValueError("the weight of a top-1 route is always 1, so it gives the vector no gradient")
    recipe = Recipe(
        learning_rate=0.0,
        task_model_lr=rate,
        train_batch_size=batch_size,
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
    return VectorChoice(task, "learned", learned_D, ROWS_OF_ONE, n_examples=len(examples))


@contextmanager
def _only_the_vector(model, task: str):
    """Restricts the model to one task and trains only its vector (1, D) in the block.

    Then restores the model.
    """
    config, table, was_training = model.config, model.task_vectors, model.training
    kept = {
        name: getattr(config, name) for name in ("task_names", "router_temperature", "exploration_epsilon")
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    known = [name not in config.random_vectors for name in config.task_names]
    rows_ND = table.weight.detach()
    start_1D = (rows_ND[known] if any(known) else rows_ND).mean(dim=0, keepdim=True)
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
