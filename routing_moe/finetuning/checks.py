"""The checks of `routing-moe finetune`, before weights are loaded.

First names, ranges and files, without torch, which takes seconds to import; then what the configuration of
the start tells: how its inputs look, and whether the rest goes with it. The errors of each of the two are
reported together.
"""

import dataclasses
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from dataloader.encoding import TextFormat
from dataloader.errors import InputError, Problems, did_you_mean, in_short
from dataloader.gym import Gym
from dataloader.options import find_options
from routing_moe.checkpoints.find import SavedBart, SavedMixture, check_one_expert, find_start
from routing_moe.checkpoints.tokenizer_files import load_start_tokenizer
from routing_moe.config.finetune import SINGLE, FinetuneSettings
from routing_moe.config.flags import differences, existing_paths, flag_problems, with_valid_values
from routing_moe.config.shared import position_problems, trained_texts
from routing_moe.finetuning.task_choices import given_vectors, route_kind, text_source, vector_table
from routing_moe.io.files import unwritable
from routing_moe.io.precision import precision_problems
from routing_moe.io.run_folder import foreign_problems, load_run_settings
from routing_moe.model.task_vectors import load_task_vectors
from routing_moe.task_choice.choice import rows_read
from routing_moe.task_choice.given_routes import (
    check_routes_differ,
    check_scored_spec,
    file_matrices,
    file_routes,
    names_file,
)


@dataclass(frozen=True)
class FinetuneInputs:
    """The checked inputs of a grid. gyms: their train files are the source of text vectors."""

    settings: FinetuneSettings
    gym: Gym
    gyms: list[Gym]
    start: SavedMixture | SavedBart


def check_finetuning(settings: FinetuneSettings, given: Collection[str]) -> FinetuneInputs:
    """Opens and checks all that the settings name; fills in the grid's lists, the samples and the texts.

    given: names of the flags that were given; texts are otherwise read as the start was trained. Raises
    InputError with all errors in names and files, and if there are none, with those in the start.
    """
    problems = Problems(flag_problems(settings) + precision_problems(settings) + contradictions(settings))
    settings = with_valid_values(settings).with_lists()
    problems.of(TextFormat.of, settings)
    gym = problems.of(open_gym, settings)
    if gym:
        settings, of_samples = with_samples(settings, gym)
        problems += of_samples
    gyms = [gym] if gym else []
    if settings.train_dir:
        other = problems.of(Gym, settings.train_dir, settings.skip_malformed, flag="train_dir")
        gyms = [other, *gyms] if other else gyms
    start = None
    if settings.init_dir or not settings.moe_init:
        start = problems.of(find_start, settings.start, settings.moe_init)
    if settings.taskvecs:
        problems.of(given_vectors, settings.taskvecs, flag="taskvecs")
    if settings.text_vectors:
        problems.of(load_task_vectors, settings.text_vectors, flag="text_vectors")
    if settings.task_routes and names_file(settings.task_routes):
        problems.of(file_routes, settings.task_routes, [settings.task])
    elif settings.task_routes:
        problems.of(check_scored_spec, settings.task_routes, flag="task_routes")
    problems += running_problems(settings)
    if not problems:
        settings = problems.of(with_texts_of, settings, start, given) or settings
    problems += folder_problems(settings)
    if problems:
        raise InputError(dict.fromkeys(problems))
    if problems := start_problems(settings, start, gyms):
        raise InputError(dict.fromkeys(problems))
    return FinetuneInputs(settings, gym, gyms, start)


def with_texts_of(
    settings: FinetuneSettings, start: SavedMixture | SavedBart, given: Collection[str]
) -> FinetuneSettings:
    """Returns the settings with texts as the start was trained to read and answer them.

    A model that never saw task names, or capital letters, reads other inputs badly, and nothing would tell.
    given: names of flags that stay. Of weights in a file, it is unknown how they were trained.
    """
    if isinstance(start, SavedBart) and start.weights:
        return settings
    return dataclasses.replace(settings, **trained_texts(start.config, given))


def contradictions(settings: FinetuneSettings) -> list[str]:
    """Returns errors in flags that exclude each other or need another one."""
    problems, sources = list_problems(settings), [f"--{flag}" for flag in settings.selecting_flags]
    if len(sources) > 1:
        problems.append(f"{' and '.join(sources)} each set the source of the route; give one of them")
    if settings.moe_init and not settings.init_dir:
        problems.append("--moe_init starts from a mixture; name its run or checkpoint with --init_dir")
    if settings.moe_init and settings.checkpoint:
        problems.append("--moe_init --init_dir and --checkpoint both name a start; give one of them")
    of_mixture = sources + [f"--{flag}" for flag in ("init_dir", "route_training") if getattr(settings, flag)]
    if of_mixture and not settings.moe_init:
        problems.append(f"{of_mixture[0]} is for the start from a mixture: give --moe_init")
    if settings.taskvecs and settings.task_vector != "auto":
        problems.append(
            f"--taskvecs and --task_vector {settings.task_vector} both choose the task's vector; give one of "
            "them"
        )
    return problems


# ---- the grid


def list_problems(settings: FinetuneSettings) -> list[str]:
    problems = []
    for name, single in SINGLE.items():
        values = getattr(settings, name)
        if values is not None and getattr(settings, single) is not None:
            problems.append(f"--{single} and --{name} both set the values to try; give one of them")
        if values and len(set(values)) < len(values):
            problems.append(f"--{name} holds a value twice: {' '.join(map(str, values))}")
    return problems


# ---- the data


def open_gym(settings: FinetuneSettings) -> Gym:
    """Returns the gym that contains the task's folder. Raises InputError if names or folders are wrong."""
    folder = Path(settings.task_dir)
    if not folder.is_dir():
        there = [path.name for path in folder.absolute().parent.glob("*") if path.is_dir()]
        hint = did_you_mean(folder.name, there)
        raise InputError(f"--task_dir {settings.task_dir}: no such folder{hint}")
    if folder.absolute().name != settings.dataset:
        raise InputError(
            f"--dataset is {settings.dataset!r}, but --task_dir is the folder of {folder.absolute().name!r}; "
            "a task has the name of its folder: leave --dataset out"
        )
    return Gym(settings.gym_dir, settings.skip_malformed)


def with_samples(settings: FinetuneSettings, gym: Gym) -> tuple[FinetuneSettings, list[str]]:
    """Returns the settings with the prefixes of the samples of `--samples`, and problems of their files."""
    problems, task, chosen = Problems(), settings.task, {}
    for name in settings.samples:
        named = problems.of(gym.named_samples, task, name, flag="task_dir")
        chosen |= dict.fromkeys(named or ())
        if named == []:
            problems.append(
                f"--samples is {name!r}: no such sample of {task}; give all, first, or some of "
                f"{', '.join(gym.samples(task))}"
            )
    parts = ["train", "dev", *(["test"] if settings.do_predict else [])]
    for sample in chosen:
        problems += gym.check([task], parts, sample)
    if settings.scoring == "rank" and not problems:
        source = problems.of(find_options, task, gym.metric(task), [gym])
        if source and source.name is None:
            problems.append(
                f"--scoring is rank, but {task} has no answer options: an options field in .jsonl files, a "
                "list (A) ... (B) ... in the inputs, or a few labels; give --scoring generate"
            )
    return dataclasses.replace(settings, samples=tuple(chosen)), list(problems)


# ---- the start and the route


def start_problems(settings: FinetuneSettings, start: SavedMixture | SavedBart, gyms: list[Gym]) -> list[str]:
    """Returns errors: a start of another kind, a route that it lacks, a task without a vector, long texts."""
    problems, config, place = Problems(), start.config, start.place
    problems += position_problems(settings, config.max_position_embeddings, place)
    problems.of(load_start_tokenizer, place, settings.model, config.vocab_size)
    if not settings.moe_init:
        instead = f"start from it with --moe_init --init_dir {settings.checkpoint}"
        problems.of(check_one_expert, start, instead, flag="checkpoint")
    elif config.num_experts == 1:
        problems.append(f"--init_dir {place} has one expert, a plain BART; give it as --checkpoint")
    else:
        problems += route_problems(settings, start) or route_source_problems(settings, start, gyms)
    return list(problems)


def route_problems(settings: FinetuneSettings, start: SavedMixture) -> list[str]:
    """Returns the error of a --route_training that the kind of route does not allow."""
    config, training = start.config, settings.route_training
    source = settings.route_source or config.route_source
    if training in ("vector", "router") and source != "learned":
        return [
            f"--route_training is {training}, but {source} routes use no router; give plain or fixed, or "
            "leave it out"
        ]
    if training in ("plain", "fixed") and source == "random":
        return [
            f"--route_training is {training}, but random routes differ between examples and steps; give "
            "merged or logits, or leave it out"
        ]
    averages = route_kind(settings, config) in ("average", "unknown")
    if training == "plain" and averages and not config.has_plain_routes:
        return [
            f"--route_training is plain, but all experts have equal weights for {settings.task}, and "
            "averaged outputs have no equivalent plain BART; give fixed, or merged to average the experts' "
            "parameters"
        ]
    learns = training in ("vector", "router") or settings.task_vector == "learned"
    if source == "learned" and config.is_top_1 and learns:
        return [
            f"{start.checkpoint} has top-1 routes, whose weight is always 1, so a vector gets no gradient; "
            "give --task_vector stored or nearest, and --route_training plain or fixed, or leave them out"
        ]
    return []


def route_source_problems(settings: FinetuneSettings, start: SavedMixture, gyms: list[Gym]) -> list[str]:
    """Returns errors of what the route is found by: a file, given vectors, rows of the mixture, or texts."""
    problems, config, task = Problems(), start.config, settings.task
    kind = route_kind(settings, config)
    if kind == "given":
        problems.of(file_matrices, settings.task_routes, [task], config)
    elif kind == "lowest loss":
        problems.of(check_routes_differ, config, flag="task_routes")
    chosen = None
    if settings.taskvecs:
        chosen = f"--taskvecs {settings.taskvecs}"
    elif settings.task_vector in ("nearest", "learned"):
        chosen = f"--task_vector {settings.task_vector}"
    if chosen and kind != "cluster" and not kind.endswith("vector"):
        problems.append(f"{chosen}: this route does not depend on task vectors")
    if settings.taskvecs:
        vectors = given_vectors(settings.taskvecs)
        problems += row_problems(settings, vectors.names, gyms, f"--taskvecs {settings.taskvecs}")
        problems += vectors.problems(start.checkpoint, config)
    elif kind == "stored vector":
        problems += row_problems(settings, rows_read(config, task), gyms, str(start.checkpoint))
    elif kind == "nearest vector":
        problems += text_source(settings, gyms).problems([task], vector_table(task, config).seen)
        if settings.text_vectors:
            names = load_task_vectors(settings.text_vectors)[0]
            problems += row_problems(settings, names, gyms, f"--text_vectors {settings.text_vectors}")
    return list(problems)


def row_problems(
    settings: FinetuneSettings, names: Collection[str], gyms: list[Gym], where: str
) -> list[str]:
    """Returns errors: samples without a row if other samples of the task have one; a task without a row."""
    task, missing = settings.task, [sample for sample in settings.samples if sample not in names]
    if missing and any(sample in names for sample in gyms[-1].samples(task)):
        return [
            f"{where} has vectors of other samples of {task}, but none of {in_short(missing)}; compute them "
            "by --samples each, or leave these samples out"
        ]
    if missing and task not in names:
        return [
            f"{where} has no vector for {task}, only for {in_short(list(names))}; give one by --taskvecs, or "
            "another --task_vector: nearest, learned"
        ]
    return []


# ---- running, the output folder


def running_problems(settings: FinetuneSettings) -> list[str]:
    problems = []
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        problems.append(
            "a configuration runs in one process: leave accelerate launch out, and give --num_workers"
        )
    return problems


def folder_problems(settings: FinetuneSettings) -> list[str]:
    """Returns problems: a folder with other files, a run of another command, a grid of other settings."""
    folder, problems = Path(settings.output_dir), Problems()
    if reason := unwritable(folder):
        return [f"--output_dir {reason}"]
    saved = problems.of(load_run_settings, folder)
    if saved is None:
        return list(problems) or foreign_problems(folder, ("config.json", "best", "last", "results.csv"))
    if "task_dir" not in saved:
        return [f"--output_dir {folder} holds a run of another command; name another folder"]
    if not any((folder / "configurations").glob("*.json")):  # a grid without results may change
        return []
    changed = differences(settings, saved, f"the grid in {folder}", ignored=existing_paths(settings))
    return [*changed[:-1], f"{changed[-1]}; for other settings name another --output_dir"] if changed else []
