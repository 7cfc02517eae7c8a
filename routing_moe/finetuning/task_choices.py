"""The vector or route of the fine-tuned task: each sample has its own if it is found by the sample's rows.

A vector is computed from the train rows of the sample that is fine-tuned, so that no sample learns from the
rows of another, where there is one for each sample. The nearest task of every sample is found once per
grid; the text vectors of the train tasks, with which all unseen tasks are compared, once per checkpoint.
Imports torch only where a model is used, so that errors are reported quickly.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from dataloader.atomic_files import write_text
from dataloader.encoding import TextFormat
from dataloader.errors import InputError
from dataloader.gym import Gym
from dataloader.jsonfile import load_json_object
from routing_moe.checkpoints.find import SavedMixture
from routing_moe.config.finetune import FinetuneSettings
from routing_moe.model.task_vectors import row_of
from routing_moe.task_choice.choice import TaskChoice, VectorTable, rows_read
from routing_moe.task_choice.given_routes import file_matrices
from routing_moe.task_choice.given_vectors import GivenVectors
from routing_moe.task_choice.texts import TextsOfModel, TextSource

CHOICES_FILE = "task_vector.json"

# ---- what the choice is made by


def route_kind(settings: FinetuneSettings, config) -> str:
    """Returns what the task's route comes from. config: that of a mixture with several experts.

    A vector that the router reads: "given vector" (of --taskvecs), "learned vector", "nearest vector" or
    "stored vector". A route: "given" (by --task_routes), "lowest loss" (on the sample's train rows),
    "cluster" (the nearest to a vector of --taskvecs), "own" (of the mixture), "unknown" (the mixture has none
    for the task: equal weights), "drawn" (at random for the task), "random" (for each example) or "average".
    """
    source = settings.route_source or config.route_source
    if source == "learned":
        if settings.taskvecs:
            return "given vector"
        if settings.task_vector == "learned":
            return "learned vector"
        needs = vector_table(settings.task, config).needing_nearest([settings.task], settings.task_vector)
        return "nearest vector" if needs else "stored vector"
    if source in ("average", "random"):
        return source
    if settings.task_routes:
        return "lowest loss" if settings.by_loss else "given"
    if settings.route_source or not config.given_routes:
        return "drawn"
    if settings.taskvecs and config.route_parts:
        return "cluster"
    return "own" if settings.task in config.task_names else "unknown"


def vector_table(task: str, config) -> VectorTable:
    """Returns the mixture's tasks. If its train tasks are unknown, all others than `task` may be copied."""
    neighbours = set(config.trained_tasks) or set(config.task_names) - {task}
    return VectorTable(config.task_names, config.random_vectors, neighbours)


def text_source(settings: FinetuneSettings, gyms: list[Gym]) -> TextSource:
    text_format = TextFormat.of(settings)
    return TextSource(tuple(gyms), text_format, settings.text_vectors, settings.examples_per_file)


def given_vectors(folder: str | None) -> GivenVectors | None:
    """Returns the vectors of `--taskvecs`, None without. Raises InputError if they cannot be read."""
    return GivenVectors.load(folder) if folder else None


# ---- nearest task


def find_neighbours(
    settings: FinetuneSettings,
    start: SavedMixture,
    gyms: list[Gym],
    data: Mapping[str, int],
) -> dict[str, TaskChoice]:
    """Returns {sample: the vector of the task nearest to its train inputs}, for all samples of the settings.

    The choices are saved in the output folder, so that a continued grid uses the same. data: checksums of the
    samples' files; if a sample's files have changed, its task is searched for again.
    """
    path = Path(settings.output_dir) / CHOICES_FILE
    choices = read_choices(path, data) if path.is_file() else {}
    missing = [sample for sample in settings.samples if sample not in choices]
    if missing:
        choices |= search_neighbours(settings, start, gyms, missing)
        described = {s: to_json(choice) | {"data": data[s]} for s, choice in sorted(choices.items())}
        write_text(path, json.dumps(described, indent=1))
    return {sample: choices[sample] for sample in settings.samples}


def search_neighbours(
    settings: FinetuneSettings, start: SavedMixture, gyms: list[Gym], samples: Collection[str]
) -> dict[str, TaskChoice]:
    import torch

    from routing_moe.checkpoints.tokenizer_files import load_start_tokenizer
    from routing_moe.io.accelerator import command_device
    from routing_moe.task_choice.choose import Chooser

    model = start.load().eval().to(command_device())
    tokenizer = load_start_tokenizer(start.checkpoint, settings.model, model.config.vocab_size)
    texts = TextsOfModel(text_source(settings, gyms), model, tokenizer, start, settings.quiet, keep=True)
    trained = vector_table(settings.task, start.config).trained
    chooser = Chooser(model, trained=trained, texts=texts)
    task = settings.task
    found = {sample: chooser.nearest(task, *texts.of(task, sample)) for sample in samples}
    del model, texts, chooser
    if torch.cuda.is_available():  # the configurations need the memory
        torch.cuda.empty_cache()
    return found


def to_json(choice: TaskChoice) -> dict:
    fields = {name: value for name, value in vars(choice).items() if value is not None}
    return fields | {"vector_D": choice.vector_D.tolist()}


def read_choices(path: Path, data: Mapping[str, int]) -> dict[str, TaskChoice]:
    """Returns {sample: choice} of the choices that were made from these data."""
    choices, found = load_json_object(path, "the vectors of a task's samples"), {}
    try:
        for sample, fields in choices.items():
            made_by = fields.pop("data")
            fields["vector_D"] = np.array(fields["vector_D"], dtype=np.float32)
            if fields["vector_D"].ndim != 1 or not np.isfinite(fields["vector_D"]).all():
                raise ValueError("no vector")
            if made_by == data.get(sample):
                found[sample] = TaskChoice(**fields)
        return found
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{path}: not the vectors of a task's samples; delete it to choose again") from None


# ---- the choice of a sample


def choose(mixture, settings: FinetuneSettings, sample: str, vectors: GivenVectors | None) -> TaskChoice:
    """Returns the vector or route of a sample that needs no nearest task and no training.

    vectors: those of `--taskvecs`, if they are read.
    """
    from routing_moe.task_choice.choose import Chooser

    config, routes = mixture.config, {}
    if settings.task_routes:
        routes = file_matrices(settings.task_routes, [settings.task], config)
    trained = vector_table(settings.task, config).trained
    return Chooser(mixture, settings.task_vector, trained, vectors, routes).choose(settings.task, sample)


def share_row(settings: FinetuneSettings, mixture, vectors: GivenVectors | None) -> bool:
    """Returns whether all samples read the same given or stored row."""
    names = vectors.names if vectors else rows_read(mixture.config, settings.task)
    return len({row_of(names, settings.task, sample) for sample in settings.samples}) == 1
