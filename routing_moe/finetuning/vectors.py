"""The vector that a mixture's router reads the task's route from; a neighbour's is found once a grid."""

import json
import logging
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState

from dataloader.encoding import TextFormat
from dataloader.errors import Faults, InputError, in_short
from dataloader.gym import Gym
from dataloader.jsonfile import load_json_object
from routing_moe.finetuning.settings import FinetuneSettings
from routing_moe.run_state import write_text
from routing_moe.saved_mixtures import SavedMixture
from routing_moe.start_checks import other_width
from routing_moe.starting import load_start_tokenizer
from routing_moe.task_vectors import load_task_vectors
from routing_moe.unseen_tasks import TextSource, VectorChoice, VectorTable, choose_vectors

VECTOR_FILE = "task_vector.json"

log = logging.getLogger(__name__)


def needs_neighbour(settings: FinetuneSettings, start: SavedMixture) -> bool:
    """Whether the task's vector is to be a neighbour's; the others are given, stored or learned."""
    if settings.taskvecs or settings.task_vector == "learned":
        return False
    return bool(vector_table(settings, start).in_need([settings.task], settings.task_vector))


def vector_faults(settings: FinetuneSettings, start: SavedMixture, gyms: list[Gym]) -> list[str]:
    """Why the task would have no vector, and what would be right."""
    faults, task = Faults(), settings.task
    if settings.taskvecs:
        if loaded := faults.of(load_task_vectors, settings.taskvecs, flag="taskvecs"):
            names, vectors_ND = loaded
            D, wanted = vectors_ND.shape[1], start.config.router_input_dim
            if task not in names:
                faults.append(
                    f"--taskvecs {settings.taskvecs} has no vector for {task}, only for {in_short(names)}"
                )
            if wanted != D:
                faults.append(other_width(settings.taskvecs, D, start.checkpoint, wanted))
    elif settings.task_vector == "stored" and task not in start.config.task_names:
        faults.append(
            f"--task_vector is stored, but {start.checkpoint} has no vector for {task}; give it by "
            "--taskvecs, or another --task_vector: nearest, learned"
        )
    elif needs_neighbour(settings, start):
        faults += text_source(settings, gyms).faults([task], vector_table(settings, start).seen)
    return list(faults)


def vector_table(settings: FinetuneSettings, start: SavedMixture) -> VectorTable:
    config = start.config
    return VectorTable.of(config.task_names, config.random_vectors, neighbours(settings, start))


def neighbours(settings: FinetuneSettings, start: SavedMixture) -> set[str]:
    """Tasks whose vector the task may get: those trained on; where that is not known, all others."""
    return set(start.config.trained_tasks) or set(start.config.task_names) - {settings.task}


def text_source(settings: FinetuneSettings, gyms: list[Gym]) -> TextSource:
    lengths = TextFormat(settings.max_input_length, do_lowercase=settings.do_lowercase)
    return TextSource(tuple(gyms), lengths, settings.text_vectors, settings.examples_per_file)


def find_neighbour(settings: FinetuneSettings, start: SavedMixture, gyms: list[Gym]) -> VectorChoice:
    """The nearest task's vector, kept in the output folder: what continues a grid finds the same."""
    path = Path(settings.output_dir) / VECTOR_FILE
    if path.is_file():
        return read_choice(path)
    model = start.load().eval().to(PartialState().device)
    tokenizer = load_start_tokenizer(start.checkpoint, settings.model, model.config.vocab_size)
    texts = text_source(settings, gyms)
    (choice,) = choose_vectors(
        model,
        tokenizer,
        [settings.task],
        settings.task_vector,
        neighbours(settings, start),
        texts,
        settings.quiet,
    )
    del model
    if torch.cuda.is_available():  # what runs the configurations needs the room
        torch.cuda.empty_cache()
    described = {name: value for name, value in vars(choice).items() if value is not None}
    write_text(path, json.dumps(described | {"vector_D": choice.vector_D.tolist()}, indent=1))
    return choice


def read_choice(path: Path) -> VectorChoice:
    fields = load_json_object(path, "the vector of a task")
    try:
        return VectorChoice(**fields | {"vector_D": np.array(fields["vector_D"], dtype=np.float32)})
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: not the vector of a task; delete it to choose anew") from None


def given_vector(settings: FinetuneSettings) -> VectorChoice:
    names, vectors_ND = load_task_vectors(settings.taskvecs)
    return VectorChoice(settings.task, "given", vectors_ND[names.index(settings.task)])
