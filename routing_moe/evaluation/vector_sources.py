"""Sources of task vectors: which tasks need the vector of another task, and texts to find the nearest task.

Does not import torch, so missing vectors are reported quickly.
"""

import contextlib
import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloader.atomic_files import write_bytes
from dataloader.encoding import TextFormat
from dataloader.errors import Faults, InputError, in_short
from dataloader.gym import Example, Gym, evenly_spread
from routing_moe.io.arrays import load_arrays
from routing_moe.io.files import npz_bytes
from routing_moe.model.task_vectors import (
    INPUTS_OF_ONE,
    NOTHING,
    ROWS_OF_ALL,
    UNKNOWN,
    load_meta,
    load_task_vectors,
    of_sample,
    row_of,
    samples_in,
    seen_by,
)

TEXTS_FILE = "text_vectors.npz"  # in the folder of the checkpoint whose encoder computed them
INPUTS_PER_TASK = 256  # more inputs barely change the mean


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

    def needing_nearest(self, tasks: Iterable[str], source: str) -> list[str]:
        """Returns the tasks that get the vector of their nearest neighbour, in the order given."""
        have = {"stored": set(tasks), "auto": self.known, "nearest": self.seen}[source]
        return [task for task in tasks if task not in have]


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

    def faults(self, needing: Collection[str], seen: Collection[str]) -> list[str]:
        """Returns faults for tasks without a nearest neighbour, with advice. Reads train files."""
        faults = Faults()
        needed, candidates = (faults.of(self.covered, tasks, flag=self._flag) for tasks in (needing, seen))
        if needed is None or candidates is None:
            return list(dict.fromkeys(faults))
        where, advice = self._lacking
        if lacking := sorted(set(needing) - set(needed)):
            faults.append(
                f"{where} of {in_short(lacking)} to find the nearest task, and the stored task vector is "
                f"random or missing; {advice}"
            )
        if not candidates:
            such = in_short(sorted(seen), 2) or "a train task of the split"
            faults.append(
                f"{where} of any task with a task vector, such as {such}: the nearest task of "
                f"{in_short(sorted(needing))} cannot be found; {advice}"
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
        return self._computed(self._inputs(tasks), model, tokenizer, quiet)

    def kept_vectors(
        self, tasks: Iterable[str], place: Path, weights: Mapping[str, str], model, tokenizer, quiet=False
    ) -> dict[str, np.ndarray]:
        """Returns `vectors`, and keeps them in the folder of the model's checkpoint.

        The next call reads them there, if weights, tokenizer and texts are the same. place: the checkpoint,
        which may be read-only. weights: checksums of its files, from before the model was loaded.
        """
        if self.folder:
            return self.vectors(tasks, model, tokenizer, quiet)
        inputs = self._inputs(self.covered(tasks))
        vocabulary = sorted(tokenizer.get_vocab().items())
        content = repr((weights, model.config.to_json_string(), vocabulary, self.text_format, inputs))
        path, made_from = place / TEXTS_FILE, hashlib.sha256(content.encode()).hexdigest()
        with contextlib.suppress(InputError, OSError):  # missing or damaged
            kept = load_arrays(path, ["made_from", "vectors_ND"])
            if kept["made_from"] == made_from:
                return dict(zip(inputs, kept["vectors_ND"], strict=True))
        vectors = self._computed(inputs, model, tokenizer, quiet)
        with contextlib.suppress(OSError):
            write_bytes(path, npz_bytes(made_from=made_from, vectors_ND=np.stack(list(vectors.values()))))
        return vectors

    def _inputs(self, tasks: Iterable[str]) -> dict[str, list[str]]:
        return {task: train_inputs(gym_with_inputs(self.gyms, task), task, self.limit) for task in tasks}

    def _computed(self, inputs: dict[str, list[str]], model, tokenizer, quiet: bool) -> dict[str, np.ndarray]:
        from routing_moe.evaluation.text_vectors import encoder_states, text_vectors  # imports torch

        vectors_ND = text_vectors(encoder_states(model), tokenizer, inputs, self.text_format, quiet=quiet)
        return dict(zip(inputs, vectors_ND, strict=True))

    def vector_of_sample(self, task: str, sample: str, gym: Gym, model, tokenizer) -> np.ndarray:
        """Returns the text vector (D,) of a sample's train inputs.

        From a folder, the sample's row, else its task's. gym: the gym of the sample. The result does not
        depend on other samples.
        """
        if self.folder:
            names, vectors_ND = load_task_vectors(self.folder)
            return vectors_ND[names.index(row_of(names, task, sample))]
        inputs = {task: train_inputs(gym, task, self.limit, sample=sample)}
        return self._computed(inputs, model, tokenizer, quiet=True)[task]


def seen_when_stored(config, task: str) -> str:
    """Returns the data that a checkpoint's vector of a task is based on. config: a RoutingBartConfig."""
    if task in config.trained_tasks:  # in training all samples are pooled
        return ROWS_OF_ALL
    if task in config.random_vectors:
        return NOTHING
    return config.vectors_seen or UNKNOWN


def gym_with_inputs(gyms: Iterable[Gym], task: str) -> Gym | None:
    """Returns the first gym that has a train file of the task, or None."""
    return next((gym for gym in gyms if gym.has_part(task, "train")), None)


def train_inputs(gym: Gym, task: str, limit: int | None = None, sample: str = "first") -> list[str]:
    """Returns the inputs of `train_examples` of one of the task's samples."""
    return [example.input for example in train_examples(gym, task, sample, limit)]


def train_examples(
    gym: Gym, task: str, samples: str, limit: int | None = None, most: int | None = INPUTS_PER_TASK
) -> list[Example]:
    """Returns at most `most` examples from the train files of a task's samples, evenly spaced.

    samples: "all", "first", or one sample by its seed or prefix. limit: number of lines read from each file.
    None for either: all. Never opens dev or test files. Raises InputError for malformed lines.
    """
    return evenly_spread(gym.pool([task], "train", samples, limit), most)
