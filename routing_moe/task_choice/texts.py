"""Text vectors of tasks, by which the nearest task is found: from a folder, a checkpoint or a gym.

Similarity is the cosine of text vectors (`evaluation/text_vectors.py`) after subtraction of the mean over the
tasks that may be the nearest, because encoder states of all texts have a large component in common.

The vectors of a gym's tasks are kept in the folder of the checkpoint whose encoder computed them:

    text_vectors.npz   names (N,), vectors_ND, inputs_N (a checksum of each task's inputs), and about:
                       JSON with text_format and made_from (a checksum of weights, tokenizer and text format)

Training writes them for the train tasks, so that the nearest task of new texts can be found without the gym.
"""

import contextlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from dataloader.atomic_files import write_bytes
from dataloader.checksums import sha256_of
from dataloader.encoding import TextFormat
from dataloader.errors import InputError, Problems, in_short
from dataloader.gym import Example, Gym, evenly_spread
from dataloader.jsonfile import parse_json
from routing_moe.checkpoints.find import SavedMixture
from routing_moe.io.arrays import load_arrays
from routing_moe.io.files import npz_bytes
from routing_moe.model.route_clusters import nearest_cluster
from routing_moe.model.task_vectors import (
    INPUTS_OF_ONE,
    load_meta,
    load_task_vectors,
    of_sample,
    row_of,
    samples_in,
    seen_by,
)

TEXTS_FILE = "text_vectors.npz"
INPUTS_PER_TASK = 256  # more inputs barely change the mean


def nearest_task(text_D: np.ndarray, candidates: Mapping[str, np.ndarray]) -> tuple[str, float]:
    """Returns (name, cosine) of the most similar candidate (of several, the first) after centring.

    Vectors are centred by subtraction of the candidates' mean; for a single candidate the cosine is 0. Raises
    ValueError if there is no candidate.
    """
    if not candidates:
        raise ValueError("there is no task with both a vector and a text to be the nearest")
    nearest = nearest_cluster(text_D, np.stack(list(candidates.values())), np.arange(len(candidates)))
    return list(candidates)[nearest.label], nearest.cosine


# ---- vectors kept with a checkpoint


@dataclass(frozen=True, eq=False)
class KeptTexts:
    """The text vectors of tasks in a checkpoint's folder: {task: vector (D,)}, {task: checksum of inputs}.

    text_format: of the texts that they were computed from.
    """

    made_from: str
    vectors: dict[str, np.ndarray]
    inputs: dict[str, str]
    text_format: TextFormat

    @classmethod
    def load(cls, checkpoint: Path) -> "KeptTexts | None":
        """Returns None if there is no such file, or it is damaged."""
        try:
            found = load_arrays(checkpoint / TEXTS_FILE, ("about", "names", "inputs_N", "vectors_ND"))
            about, names = parse_json(str(found["about"])), found["names"].tolist()
            vectors, inputs = (dict(zip(names, found[x], strict=True)) for x in ("vectors_ND", "inputs_N"))
            return cls(about["made_from"], vectors, inputs, TextFormat(**about["text_format"]))
        except (InputError, OSError, KeyError, TypeError, ValueError):
            return None

    def save(self, checkpoint: Path) -> None:
        about = {"made_from": self.made_from, "text_format": asdict(self.text_format)}
        names = list(self.vectors)
        content = npz_bytes(
            about=json.dumps(about),
            names=np.array(names),
            inputs_N=np.array([self.inputs[name] for name in names]),
            vectors_ND=np.stack([self.vectors[name] for name in names]),
        )
        write_bytes(checkpoint / TEXTS_FILE, content)


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

    def problems(self, needing: Collection[str], seen: Collection[str]) -> list[str]:
        """Returns problems for tasks without a nearest neighbour, with advice. Reads train files."""
        problems = Problems()
        flag = "text_vectors" if self.folder else None
        needed, candidates = (problems.of(self.covered, tasks, flag=flag) for tasks in (needing, seen))
        if needed is None or candidates is None:
            return list(dict.fromkeys(problems))
        where, advice = self._lacking
        if lacking := sorted(set(needing) - set(needed)):
            problems.append(
                f"{where} of {in_short(lacking)} to find the nearest task, and the stored task vector is "
                f"random or missing; {advice}"
            )
        if not candidates:
            such = in_short(sorted(seen), 2) or "a train task of the split"
            problems.append(
                f"{where} of any task with a task vector, such as {such}: the nearest task of "
                f"{in_short(sorted(needing))} cannot be found; {advice}"
            )
        if not self.folder:
            problems += self.file_problems({*needed, *candidates})
        return list(problems)

    def file_problems(self, tasks: Collection[str]) -> list[str]:
        """Returns problems of the train files of the first samples of tasks. Reads them."""
        problems = []
        for gym in dict.fromkeys(self.gyms):
            own = [task for task in tasks if gym_with_inputs(self.gyms, task) is gym]
            problems += gym.check(own, ["train"], "first", metrics=False)
        return problems

    def row_problems(self, tasks: Collection[str]) -> list[str]:
        """Returns problems of tasks whose train rows are read, with their answers. Reads train files."""
        lacking = sorted(task for task in tasks if not gym_with_inputs(self.gyms, task))
        where = " and ".join(dict.fromkeys(str(gym.folder) for gym in self.gyms))
        without = [f"{where}: no train file of {in_short(lacking)}, whose rows are needed to choose a route"]
        return (without if lacking else []) + self.file_problems(tasks)

    @property
    def _lacking(self) -> tuple[str, str]:
        """Where texts are missing, and what to do about it, for messages."""
        others = "--text_vectors with it, or, for a random vector, --task_vector stored"
        if self.folder:
            return f"--text_vectors {self.folder}: no vector", f"give {others}"
        where = " and ".join(dict.fromkeys(str(gym.folder) for gym in self.gyms)) or "--train_dir not given"
        return f"{where}: no train file", f"give a gym with it as --train_dir, {others}"


@dataclass
class TextsOfModel:
    """The text vectors of a source, computed by the encoder of a model, as `Chooser` reads them.

    start: the model's checkpoint, whose folder may be read-only. keep: write the vectors of candidates there.
    """

    source: TextSource
    model: object
    tokenizer: object
    start: SavedMixture
    quiet: bool = False
    keep: bool = False

    def of(self, task: str, sample: str | None = None) -> tuple[np.ndarray, str]:
        """Returns (text vector (D,), what it has seen) of a task or one of its samples, by its train inputs.

        From a folder, the sample's row, else its task's. The result does not depend on other samples.
        """
        source, seen = self.source, self.source.seen_of(task, sample)
        if source.folder:
            names, vectors_ND = load_task_vectors(source.folder)
            return vectors_ND[names.index(row_of(names, task, sample))], seen
        gym = source.gyms[-1] if sample else gym_with_inputs(source.gyms, task)
        inputs = train_inputs(gym, task, source.limit, sample or "first")
        return self._computed({task: inputs}, quiet=True)[task], seen

    def candidates(self, tasks: Iterable[str]) -> dict[str, np.ndarray]:
        """Returns {task: text vector (D,)} of the tasks that have a text, by name.

        Reads those that the checkpoint's folder has, of the same texts.
        """
        source, tasks = self.source, self.source.covered(tasks)
        if source.folder:
            names, vectors_ND = load_task_vectors(source.folder)
            return {task: vectors_ND[names.index(task)] for task in tasks}
        texts = {task: train_inputs(gym_with_inputs(source.gyms, task), task, source.limit) for task in tasks}
        inputs = {task: sha256_of([repr(of_task)]) for task, of_task in texts.items()}
        # Neither answers nor task names are part of a text vector.
        shown = replace(
            source.text_format, max_output_length=TextFormat.max_output_length, hide_task_names=False
        )
        start = (self.start.checksums(), sorted(self.tokenizer.get_vocab().items()), shown)
        made_from = sha256_of(map(repr, start))
        kept = KeptTexts.load(self.start.checkpoint)
        if kept is None or kept.made_from != made_from:
            kept = KeptTexts(made_from, {}, {}, shown)
        if missing := {task: texts[task] for task in tasks if kept.inputs.get(task) != inputs[task]}:
            vectors = kept.vectors | self._computed(missing, self.quiet)
            kept = KeptTexts(made_from, vectors, kept.inputs | inputs, shown)
            with contextlib.suppress(OSError):
                if self.keep:
                    kept.save(self.start.checkpoint)
        return {task: kept.vectors[task] for task in tasks}

    def _computed(self, inputs: dict[str, list[str]], quiet: bool) -> dict[str, np.ndarray]:
        from routing_moe.evaluation.text_vectors import encoder_states, text_vectors  # imports torch

        states_of, text_format = encoder_states(self.model), self.source.text_format
        vectors_ND = text_vectors(states_of, self.tokenizer, inputs, text_format, quiet=quiet)
        return dict(zip(inputs, vectors_ND, strict=True))


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
