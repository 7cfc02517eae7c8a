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
from collections.abc import Collection, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator

from dataloader.encoding import EncodedExamples, TextFormat
from dataloader.errors import Faults, in_short
from dataloader.gym import Gym
from routing_moe.config.settings import Recipe
from routing_moe.evaluation.text_vectors import encoder_states, gym_with_inputs, text_vectors, train_inputs
from routing_moe.io.accelerator import make_accelerator
from routing_moe.model.modeling import TaskVectors
from routing_moe.model.task_vectors import (
    INPUTS_OF_ONE,
    NOTHING,
    ROWS_OF_ALL,
    ROWS_OF_ONE,
    UNKNOWN,
    load_meta,
    load_task_vectors,
    of_sample,
    row_of,
    samples_in,
    seen_by,
)
from routing_moe.optim.step import Stepper

VECTOR_SOURCES = ("auto", "stored", "nearest", "learned")
FOUND_BY_RULE = VECTOR_SOURCES[:3]  # without training

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class VectorChoice:
    """The vector (D,) float32 of a task and its source.

    source: "stored", "random" (stored but untrained), "nearest", "learned" or "given". seen: the data of the
    task that the choice is based on, one of `task_vectors.SEEN`, with the name of the sample.
    """

    task: str
    source: str
    vector_D: np.ndarray
    seen: str = UNKNOWN
    neighbour: str | None = None  # nearest: the task whose vector is copied
    similarity: float | None = None  # nearest: cosine, -1 to 1
    n_examples: int | None = None  # learned: number of examples

    def described(self) -> str:
        """Returns a short description for logs and tables."""
        if self.source == "nearest":
            return f"vector of {self.neighbour} (nearest by text, cosine {self.similarity:.2f})"
        if self.source == "learned":
            examples = "1 example" if self.n_examples == 1 else f"{self.n_examples} examples"
            return f"vector learned from {examples}"
        return f"{self.source} vector"


# ---- tasks that need a vector, tasks whose vector may be copied


@dataclass(frozen=True)
class VectorTable:
    """The tasks in a checkpoint.

    names: all tasks with a row; random: those whose row is random and untrained; trained: the train tasks of
    the current split.
    """

    names: frozenset[str]
    random: frozenset[str]
    trained: frozenset[str]

    @classmethod
    def of(cls, names: Iterable[str], random: Iterable[str], trained: Iterable[str]) -> "VectorTable":
        return cls(frozenset(names), frozenset(random), frozenset(trained))

    @property
    def known(self) -> frozenset[str]:
        """Tasks whose row has information about them."""
        return self.names - self.random

    @property
    def seen(self) -> frozenset[str]:
        """Tasks whose vectors may be copied: the known train tasks, or all known tasks if there are none."""
        return (self.known & self.trained) or self.known

    def in_need(self, tasks: Iterable[str], source: str) -> list[str]:
        """Returns the tasks that get the vector of their nearest neighbour, in the order given."""
        have = {"stored": set(tasks), "auto": self.known, "nearest": self.seen}[source]
        return [task for task in tasks if task not in have]


# ---- texts of tasks


@dataclass(frozen=True)
class TextSource:
    """Source of text vectors of tasks: a folder, or the first gym that has a train file of the task."""

    gyms: tuple[Gym, ...]
    text_format: TextFormat
    folder: str | None = None  # --text_vectors
    limit: int | None = None  # examples read from a file; None: all

    def seen_of(self, task: str, sample: str | None = None) -> str:
        """Returns the data of a task that a choice by text is based on.

        This is the same as for the folder's vectors, or the inputs of a sample (None: the task's first
        sample).
        """
        if self.folder:
            meta = load_meta(self.folder)
            return of_sample(seen_by(meta), sample) if sample in samples_in(meta) else seen_by(meta)
        return of_sample(INPUTS_OF_ONE, sample or gym_with_inputs(self.gyms, task).samples(task)[0])

    def covered(self, tasks: Iterable[str]) -> list[str]:
        """Returns the tasks that have a text, sorted. Raises InputError if the folder has no task vectors."""
        tasks = sorted(set(tasks))
        if self.folder:
            names = set(load_task_vectors(self.folder)[0])
            return [task for task in tasks if task in names]
        return [task for task in tasks if gym_with_inputs(self.gyms, task)]

    def faults(self, in_need: Collection[str], seen: Collection[str]) -> list[str]:
        """Returns faults for tasks without a nearest neighbour, with advice. Reads train files."""
        faults = Faults()
        needed, candidates = (faults.of(self.covered, tasks, flag=self._flag) for tasks in (in_need, seen))
        if needed is None or candidates is None:
            return list(dict.fromkeys(faults))
        where, advice = self._lacking
        if lacking := sorted(set(in_need) - set(needed)):
            faults.append(
                f"{where} of {in_short(lacking)} to find the nearest task, and the stored task vector is "
                f"random or missing; {advice}"
            )
        if not candidates:
            such = in_short(sorted(seen), 2) or "a train task of the split"
            faults.append(
                f"{where} of any task with a task vector, such as {such}: the nearest task of "
                f"{in_short(sorted(in_need))} cannot be found; {advice}"
            )
        if not self.folder:
            for gym in dict.fromkeys(self.gyms):
                own = [task for task in {*needed, *candidates} if gym_with_inputs(self.gyms, task) is gym]
                faults += gym.check(own, ["train"], "first", metrics=False)
        return list(faults)

    @property
    def _flag(self) -> str | None:
        return "text_vectors" if self.folder else None

    @property
    def _lacking(self) -> tuple[str, str]:
        """Where texts are missing, and what to do about it, for messages."""
        others = "--text_vectors with it, or, for a random vector, --task_vector stored"
        if self.folder:
            return f"--text_vectors {self.folder}: no vector", f"give {others}"
        where = " and ".join(dict.fromkeys(str(gym.folder) for gym in self.gyms)) or "--train_dir not given"
        return f"{where}: no train file", f"give a gym with it as --train_dir, {others}"

    def vectors(self, tasks: Iterable[str], model, tokenizer, quiet: bool = False) -> dict[str, np.ndarray]:
        """Returns {task: text vector (D,)} of the tasks that have a text, computed by the model's encoder."""
        tasks = self.covered(tasks)
        if self.folder:
            names, vectors_ND = load_task_vectors(self.folder)
            return {task: vectors_ND[names.index(task)] for task in tasks}
        inputs = {task: train_inputs(gym_with_inputs(self.gyms, task), task, self.limit) for task in tasks}
        vectors_ND = text_vectors(encoder_states(model), tokenizer, inputs, self.text_format, quiet=quiet)
        return dict(zip(tasks, vectors_ND, strict=True))

    def vector_of_sample(self, task: str, sample: str, gym: Gym, model, tokenizer) -> np.ndarray:
        """Returns the text vector (D,) of a sample's train inputs.

        From a folder, the sample's row, else its task's. gym: the gym of the sample. The result does not
        depend on other samples.
        """
        if self.folder:
            names, vectors_ND = load_task_vectors(self.folder)
            return vectors_ND[names.index(row_of(names, task, sample))]
        inputs = {task: train_inputs(gym, task, self.limit, sample=sample)}
        return text_vectors(encoder_states(model), tokenizer, inputs, self.text_format, quiet=True)[0]


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
    in_need = table.in_need([task for task in tasks if task not in given], source)
    text_of = texts.vectors({*in_need, *table.seen}, model, tokenizer, quiet) if in_need else {}
    candidates = {task: text_of[task] for task in sorted(table.seen) if task in text_of}
    choices = []
    for task in tasks:
        if task in given:
            choices.append(VectorChoice(task, "given", given[task], given_seen))
            continue
        if task not in in_need:
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


def seen_when_stored(config, task: str) -> str:
    """Returns the data that a checkpoint's vector of a task is based on. config: a RoutingBartConfig."""
    if task in config.trained_tasks:  # in training all samples are pooled
        return ROWS_OF_ALL
    if task in config.random_vectors:
        return NOTHING
    return config.vectors_seen or UNKNOWN


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
    accelerator: Accelerator | None = None,
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
        stepper = Stepper(model, examples, recipe, accelerator or make_accelerator())
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
