"""The task vectors that a mixture's router reads in fine-tuning: each sample has its own.

A vector is computed from the train rows of the sample that is fine-tuned, so that no sample learns from the
rows of another; if this is impossible, a note is logged. The nearest task of every sample is found once per
grid; the text vectors of the train tasks, with which all unseen tasks are compared, once per checkpoint.
"""

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloader.atomic_files import write_text
from dataloader.encoding import TextFormat
from dataloader.errors import Faults, InputError, in_short
from dataloader.gym import Gym
from dataloader.jsonfile import load_json_object
from routing_moe.checkpoints.find import SavedMixture
from routing_moe.config.finetune import FinetuneSettings
from routing_moe.evaluation.vector_sources import TextSource, VectorChoice, VectorTable, seen_when_stored
from routing_moe.model.task_vectors import NOTHING, load_meta, load_task_vectors, of_sample, row_of, seen_by
from routing_moe.training.start_checks import other_width

VECTOR_FILE = "task_vector.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class GivenVectors:
    """The vectors (N, D) of `--taskvecs`, the names of their rows, and what they have seen of their tasks."""

    names: list[str]
    vectors_ND: np.ndarray
    seen: str

    @classmethod
    def load(cls, settings: FinetuneSettings) -> "GivenVectors | None":
        """Returns None without `--taskvecs`. Raises InputError for a folder that cannot be read."""
        folder = settings.taskvecs
        return cls(*load_task_vectors(folder), seen_by(load_meta(folder))) if folder else None


def needs_neighbour(settings: FinetuneSettings, start: SavedMixture) -> bool:
    """Returns whether the task gets the vector of its nearest task, not a given, stored or learned one."""
    if settings.taskvecs or settings.task_vector == "learned":
        return False
    return bool(vector_table(settings, start).needing_nearest([settings.task], settings.task_vector))


def vector_faults(settings: FinetuneSettings, start: SavedMixture, gyms: list[Gym]) -> list[str]:
    """Returns why the task has no vector, with what to give instead."""
    faults, task = Faults(), settings.task
    if settings.taskvecs:
        if loaded := faults.of(load_task_vectors, settings.taskvecs, flag="taskvecs"):
            names, vectors_ND = loaded
            D, wanted = vectors_ND.shape[1], start.config.router_input_dim
            faults += row_faults(settings, names, gyms, f"--taskvecs {settings.taskvecs}")
            if wanted != D:
                faults.append(other_width(settings.taskvecs, D, start.checkpoint, wanted))
    elif settings.task_vector == "stored" and not rows_of_samples(settings, start.config.task_names):
        faults.append(
            f"--task_vector is stored, but {start.checkpoint} has no vector for {task}; give it by "
            "--taskvecs, or another --task_vector: nearest, learned"
        )
    elif needs_neighbour(settings, start):
        faults += text_source(settings, gyms).faults([task], vector_table(settings, start).seen)
        if settings.text_vectors and (loaded := faults.of(load_task_vectors, settings.text_vectors)):
            faults += row_faults(settings, loaded[0], gyms, f"--text_vectors {settings.text_vectors}")
    elif settings.task_vector != "learned":
        faults += row_faults(settings, stored_rows(settings, start.config), gyms, str(start.checkpoint))
    return list(dict.fromkeys(faults))


def row_faults(settings: FinetuneSettings, names: Collection[str], gyms: list[Gym], where: str) -> list[str]:
    """Returns faults: samples without a row if other samples of the task have one; a task without a row."""
    own_gym, task = gyms[-1], settings.task
    lacking = [sample for sample in settings.samples if sample not in names]
    if lacking and any(sample in names for sample in own_gym.samples(task)):
        return [
            f"{where} has vectors of other samples of {task}, but none of {in_short(lacking)}; compute them "
            "by --samples each, or leave these samples out"
        ]
    if lacking and task not in names:
        return [f"{where} has no vector for {task}, only for {in_short(names)}"]
    return []


def rows_of_samples(settings: FinetuneSettings, names: Collection[str]) -> dict[str, str]:
    """Returns {sample: the row it reads, its own or else its task's}, without samples that have neither."""
    rows = {sample: row_of(names, settings.task, sample) for sample in settings.samples}
    return {sample: row for sample, row in rows.items() if row in names}


def vector_table(settings: FinetuneSettings, start: SavedMixture) -> VectorTable:
    config = start.config
    return VectorTable.of(config.task_names, config.random_vectors, neighbours(settings, start))


def neighbours(settings: FinetuneSettings, start: SavedMixture) -> set[str]:
    """Returns tasks whose vector the task may get: the trained tasks; if they are unknown, all others."""
    return set(start.config.trained_tasks) or set(start.config.task_names) - {settings.task}


def text_source(settings: FinetuneSettings, gyms: list[Gym]) -> TextSource:
    lengths = TextFormat(settings.max_input_length, do_lowercase=settings.do_lowercase)
    return TextSource(tuple(gyms), lengths, settings.text_vectors, settings.examples_per_file)


# ---- nearest task


def find_neighbours(
    settings: FinetuneSettings,
    start: SavedMixture,
    gyms: list[Gym],
    data: Mapping[str, int],
    weights: Mapping[str, str],
) -> dict[str, VectorChoice]:
    """Returns {sample: the vector of the task nearest to its train inputs}, for all samples of the settings.

    The choices are saved in the output folder, so that a continued grid uses the same. data: checksums of the
    samples' files; if a sample's files have changed, its task is searched for again. weights: the start's.
    """
    path = Path(settings.output_dir) / VECTOR_FILE
    kept = read_choices(path, data) if path.is_file() else {}
    wanted = [sample for sample in settings.samples if sample not in kept]
    if wanted:
        kept |= search_neighbours(settings, start, gyms, wanted, weights)
        described = {s: to_json(choice) | {"data": data[s]} for s, choice in sorted(kept.items())}
        write_text(path, json.dumps(described, indent=1))
    return {sample: kept[sample] for sample in settings.samples}


def search_neighbours(
    settings: FinetuneSettings, start: SavedMixture, gyms: list[Gym], samples, weights: Mapping[str, str]
) -> dict[str, VectorChoice]:
    import torch  # takes seconds, so errors in flags and files are reported first

    from routing_moe.checkpoints.start import load_start_tokenizer
    from routing_moe.evaluation.unseen_tasks import choose_nearest
    from routing_moe.io.accelerator import command_device

    model = start.load().eval().to(command_device())
    tokenizer = load_start_tokenizer(start.checkpoint, settings.model, model.config.vocab_size)
    texts, task, own_gym = text_source(settings, gyms), settings.task, gyms[-1]
    seen = vector_table(settings, start).seen
    candidates = texts.kept_vectors(seen, start.checkpoint, weights, model, tokenizer, settings.quiet)
    found = {}
    for sample in samples:
        text_D = texts.vector_of_sample(task, sample, own_gym, model, tokenizer)
        found[sample] = choose_nearest(model, task, text_D, candidates, texts.seen_of(task, sample))
    if settings.runs_here:
        start.kept.append(model)
    del model
    if torch.cuda.is_available():  # the configurations need the memory
        torch.cuda.empty_cache()
    return found


def to_json(choice: VectorChoice) -> dict:
    fields = {name: value for name, value in vars(choice).items() if value is not None}
    return fields | {"vector_D": choice.vector_D.tolist()}


def read_choices(path: Path, data: Mapping[str, int]) -> dict[str, VectorChoice]:
    """Returns {sample: choice} of the choices that were made from these data.

    A file of an earlier version has one choice, by the first sample's inputs; it is used for all samples.
    """
    choices, found = load_json_object(path, "the vectors of a task's samples"), {}
    if "vector_D" in choices:
        choices = {sample: choices | {"data": checksum} for sample, checksum in data.items()}
        log.info(
            "note: %s is of an earlier version, which took one vector for all samples; this grid continues "
            "with it. With another --output_dir each sample has its own",
            path,
        )
    try:
        for sample, fields in choices.items():
            made_by = fields.pop("data")
            fields["vector_D"] = np.array(fields["vector_D"], dtype=np.float32)
            if fields["vector_D"].ndim != 1 or not np.isfinite(fields["vector_D"]).all():
                raise ValueError("no vector")
            if made_by == data.get(sample):
                found[sample] = VectorChoice(**fields)
        return found
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{path}: not the vectors of a task's samples; delete it to choose again") from None


# ---- given or stored


def own_vector(mixture, settings: FinetuneSettings, sample: str, given: GivenVectors | None) -> VectorChoice:
    """Returns a sample's given or stored vector: the sample's own row, else its task's."""
    from routing_moe.evaluation.unseen_tasks import stored_vector  # imports torch

    config = mixture.config
    row = row_of(given.names if given else stored_rows(settings, config), settings.task, sample)
    if given:
        source, seen, vector_D = "given", given.seen, given.vectors_ND[given.names.index(row)]
    else:
        source = "random" if row in config.random_vectors else "stored"
        seen, vector_D = seen_when_stored(config, row), stored_vector(mixture, row)
    seen = of_sample(seen, sample) if row == sample else seen
    return VectorChoice(settings.task, source, vector_D, seen)


def stored_rows(settings: FinetuneSettings, config) -> list[str]:
    """Returns the names of the mixture's rows that samples may read.

    For a task that the mixture was trained on: only its own row, which the router was trained with.
    """
    return [settings.task] if settings.task in config.trained_tasks else config.task_names


def share_row(settings: FinetuneSettings, mixture, given: GivenVectors | None) -> bool:
    """Returns whether all samples read the same given or stored row."""
    names = given.names if given else stored_rows(settings, mixture.config)
    return len(set(rows_of_samples(settings, names).values())) <= 1


def leak_note(settings: FinetuneSettings, start: SavedMixture) -> str | None:
    """Returns a note to log if an unseen task's vector may have seen rows of other samples, else None."""
    if settings.task_vector == "learned" or settings.task in start.config.trained_tasks:
        return None
    if given := GivenVectors.load(settings):
        names, seen = given.names, given.seen
    elif needs_neighbour(settings, start):
        if not settings.text_vectors:
            return None
        names, seen = load_task_vectors(settings.text_vectors)[0], seen_by(load_meta(settings.text_vectors))
    else:
        names, seen = stored_rows(settings, start.config), seen_when_stored(start.config, settings.task)
    if seen == NOTHING or set(rows_of_samples(settings, names)) <= set(names):
        return None
    return (
        f"all samples of {settings.task} read one vector, which has seen of the task: {seen}; so rows of one "
        "sample may reach another. --samples each of task.task_emb gives each its own vector"
    )
