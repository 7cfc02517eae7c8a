"""Text vectors of tasks, by which the nearest task is found: from a folder, a checkpoint or a gym.

Similarity is the cosine of text vectors minus their mean over the tasks that may be the nearest, because all
texts have much in common. Checkpoints keep those of train tasks, so that new texts need no gym, in
text_vectors.npz: names (N,), vectors_ND, and about, JSON of the other `KeptTexts`.
"""

import contextlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataloader.atomic_files import write_bytes
from dataloader.encoding import TextFormat
from dataloader.errors import InputError, in_short
from dataloader.gym import Example, Gym, evenly_spread
from dataloader.jsonfile import parse_json
from routing_moe.checkpoints.find import SavedMixture
from routing_moe.io.arrays import load_arrays
from routing_moe.io.files import npz_bytes
from routing_moe.model.route_clusters import nearest_cluster
from routing_moe.model.task_vectors import INPUTS_OF_ONE, load_task_vectors, of_sample
from routing_moe.task_choice.choice import GivenVectors

TEXTS_FILE = "text_vectors.npz"
INPUTS_PER_TASK = 256  # more inputs barely change the mean


class KeptTexts(NamedTuple):
    """The text vectors (D,) of tasks in a checkpoint's folder, and the format and number of their texts."""

    vectors: dict[str, np.ndarray]
    text_format: TextFormat
    limit: int | None = None  # as of `TextSource`


def kept_texts(checkpoint: Path) -> KeptTexts | None:
    """Returns the text vectors in a checkpoint's folder, None without. Raises InputError if damaged."""
    path = checkpoint / TEXTS_FILE
    if not path.is_file():
        return None
    try:
        arrays = load_arrays(path, ("about", "names", "vectors_ND"))
        vectors = dict(zip(arrays["names"].tolist(), arrays["vectors_ND"], strict=True))
        about = parse_json(str(arrays["about"]))
        return KeptTexts(vectors, TextFormat(**about["text_format"]), about.get("limit"))
    except (KeyError, TypeError, ValueError):  # also InputError of the array file
        raise InputError(f"{path} is damaged; delete it, and give --train_dir to make it again") from None


def nearest_task(text_D: np.ndarray, candidates: Mapping[str, np.ndarray]) -> tuple[str, float]:
    """Returns (name, cosine) of the most similar candidate (of several, the first) after centring."""
    nearest = nearest_cluster(text_D, np.stack(list(candidates.values())), np.arange(len(candidates)))
    return list(candidates)[nearest.label], nearest.cosine


@dataclass(frozen=True)
class TextSource:
    """Source of text vectors of tasks: a folder, or the first gym that has a train file of the task."""

    gyms: tuple[Gym, ...]
    text_format: TextFormat
    folder: str | None = None  # --text_vectors
    limit: int | None = None  # examples read from a file; None: all

    def covered(self, tasks: Iterable[str]) -> list[str]:
        """Returns the tasks that have a text, sorted."""
        if self.folder:
            return sorted(set(tasks).intersection(load_task_vectors(self.folder)[0]))
        return sorted(task for task in set(tasks) if any(gym.has_part(task, "train") for gym in self.gyms))

    def check(self, needing: Collection[str], seen: Collection[str]) -> None:
        """Raises InputError if there is no text to find the nearest of the tasks `seen` for another one."""
        lacking = sorted(set(needing) - set(self.covered(needing)))
        if not lacking and self.covered(seen):
            return
        place = f"--text_vectors {self.folder}: no vector" if self.folder else f"{self.places}: no train file"
        what = in_short(lacking) or f"any task with a task vector, such as {in_short(sorted(seen), 2)},"
        advice = "give a gym with it as --train_dir, or --text_vectors with it, or --task_vector stored"
        raise InputError(f"{place} of {what} to find the nearest task; {advice}")

    @property
    def places(self) -> str:
        return " and ".join(str(gym.folder) for gym in dict.fromkeys(self.gyms))

    def gym_of(self, task: str) -> Gym:
        """Returns the first gym that has a train file of the task. Raises InputError without one."""
        for gym in self.gyms:
            if gym.has_part(task, "train"):
                return gym
        raise InputError(f"{self.places}: no train file of {task}, whose rows are needed to choose a route")

    def inputs(self, task: str, sample: str | None = None) -> list[str]:
        """Returns inputs of a sample of the task, whose gym is the last; None: its first, in any gym."""
        gym = self.gyms[-1] if sample else self.gym_of(task)
        return [example.whole_text for example in train_examples(gym, task, sample or "first", self.limit)]


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

    @cached_property
    def given(self) -> GivenVectors:
        """The vectors of the source's folder."""
        return GivenVectors.load(self.source.folder)

    def text_vector_of(self, task: str, sample: str | None = None) -> tuple[np.ndarray, str]:
        """Returns (text vector (D,), what it has seen) of a task or of one of its samples."""
        if self.source.folder:
            if (found := self.given.vector_of(task, sample)) is None:
                raise InputError(f"--text_vectors {self.source.folder} has no vector of {task}")
            return found
        seen_sample = sample or self.source.gym_of(task).samples(task)[0]
        (text_D,) = self._computed({task: self.source.inputs(task, sample)}, quiet=True).values()
        return text_D, of_sample(INPUTS_OF_ONE, seen_sample)

    def candidates(self, tasks: Iterable[str]) -> dict[str, np.ndarray]:
        """Returns {task: text vector (D,)} of the tasks that have a text: kept in the checkpoint, or new."""
        covered, limit = self.source.covered(tasks), self.source.limit
        if self.source.folder:
            vectors = self.given.by_name
            return {task: vectors[task] for task in covered}
        # Neither answers nor task names are part of a text vector.
        longest = TextFormat.max_output_length
        text_format = replace(self.source.text_format, max_output_length=longest, hide_task_names=False)
        kept = kept_texts(self.start.place)
        vectors = kept.vectors if kept and kept[1:] == (text_format, limit) else {}
        if missing := [task for task in covered if task not in vectors]:
            vectors |= self._computed({task: self.source.inputs(task) for task in missing}, self.quiet)
            if self.keep and (kept is None or kept[1:] == (text_format, limit)):  # none is replaced
                content = npz_bytes(
                    about=json.dumps({"text_format": asdict(text_format), "limit": limit}),
                    names=np.array(list(vectors)),
                    vectors_ND=np.stack(list(vectors.values())),
                )
                with contextlib.suppress(OSError):
                    write_bytes(self.start.place / TEXTS_FILE, content)
        return {task: vectors[task] for task in sorted(set(tasks)) if task in vectors}

    def _computed(self, inputs: dict[str, list[str]], quiet: bool) -> dict[str, np.ndarray]:
        from routing_moe.evaluation.text_vectors import encoder_states, text_vectors  # imports torch

        states_of, text_format = encoder_states(self.model), self.source.text_format
        vectors_ND = text_vectors(states_of, self.tokenizer, inputs, text_format, quiet=quiet)
        return dict(zip(inputs, vectors_ND, strict=True))


def train_examples(
    gym: Gym, task: str, samples: str, limit: int | None = None, most: int | None = INPUTS_PER_TASK
) -> list[Example]:
    """Returns at most `most` examples from the train files of a task's samples, evenly spaced."""
    return evenly_spread(gym.pool([task], "train", samples, limit), most)
