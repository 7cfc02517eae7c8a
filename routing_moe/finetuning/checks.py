"""The checks of `routing-moe finetune`: flags, then files, then what the configuration of the start tells.

Each file is opened by its one reader, which raises InputError. What is checked here as well is what no reader
knows: whether flags, task, samples, route and start fit together. Nothing is written; no weights are loaded.
"""

import dataclasses
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from dataloader.encoding import TextFormat
from dataloader.errors import InputError, did_you_mean, in_short, problem_context
from dataloader.gym import Gym
from dataloader.options import find_options
from routing_moe.checkpoints.find import SavedBart, SavedMixture, check_one_expert, find_start
from routing_moe.checkpoints.tokenizer_files import load_start_tokenizer
from routing_moe.config.finetune import SINGLE, FinetuneSettings
from routing_moe.config.flags import differences, existing_paths, flag_problems
from routing_moe.config.shared import position_problems, trained_texts
from routing_moe.finetuning.route_kind import route_kind, text_source, vector_table
from routing_moe.io.files import unwritable
from routing_moe.io.precision import precision_problems
from routing_moe.io.run_folder import foreign_problems, load_run_settings
from routing_moe.model.task_vectors import load_task_vectors
from routing_moe.task_choice.choice import rows_read
from routing_moe.task_choice.given_routes import check_routes_differ, check_scored_spec, file_matrices
from routing_moe.task_choice.given_vectors import GivenVectors


@dataclass(frozen=True)
class FinetuneInputs:
    """The checked inputs of a grid. start: found, but not loaded."""

    settings: FinetuneSettings
    gym: Gym
    start: SavedMixture | SavedBart


def check_finetuning(settings: FinetuneSettings, given_flags: Collection[str]) -> FinetuneInputs:
    """Opens all that the settings name; fills in the lists of the grid, the samples and the texts.

    given_flags: names; texts are otherwise read as the start was trained to read them,
    because another format lowers scores without a warning. Raises InputError.
    """
    check_flags(settings)
    settings = settings.with_lists()
    gym = open_gym(settings)
    settings = dataclasses.replace(settings, samples=tuple(chosen_samples(settings, gym)))
    check_files(settings, gym)
    start = find_start(settings.start, settings.moe_init)
    if not isinstance(start, SavedBart) or start.weights is None:  # of a file, the training is unknown
        settings = dataclasses.replace(settings, **trained_texts(start.config, given_flags))
    TextFormat.of(settings)
    check_output_dir(settings)
    check_start(settings, start)
    if settings.moe_init:
        check_route_training(settings, start)
        check_route_source(settings, start, gym)
    return FinetuneInputs(settings, gym, start)


def check_flags(settings: FinetuneSettings) -> None:
    """Raises InputError for wrong values, and for flags that exclude each other or need another one."""
    problems = flag_problems(settings) + precision_problems(settings)
    for name, single in SINGLE.items():
        if None not in (getattr(settings, name), getattr(settings, single)):
            problems.append(f"--{single} and --{name} both set the values to try; give one of them")
    sources = [f"--{flag}" for flag in settings.selecting_flags]
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
        problems.append(f"--taskvecs and --task_vector {settings.task_vector} both choose a vector; give one")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        problems.append("a configuration runs in one process: give --num_workers, not accelerate launch")
    if problems:
        raise InputError(problems)


# ---- the data and the output folder


def open_gym(settings: FinetuneSettings) -> Gym:
    """Returns the gym that contains the task's folder."""
    folder = Path(settings.task_dir).absolute()
    if not folder.is_dir():
        hint = did_you_mean(folder.name, [path.name for path in folder.parent.glob("*") if path.is_dir()])
        raise InputError(f"--task_dir {settings.task_dir}: no such folder{hint}")
    if folder.name != settings.dataset:
        raise InputError(
            f"--dataset is {settings.dataset!r}, but --task_dir is the folder of {folder.name!r}; a task has "
            "the name of its folder: leave --dataset out"
        )
    return Gym(settings.gym_dir, settings.skip_malformed)


def chosen_samples(settings: FinetuneSettings, gym: Gym) -> list[str]:
    """Returns the prefixes of the samples of `--samples`."""
    chosen = {}
    for name in settings.samples:
        with problem_context("--task_dir "):
            named = gym.named_samples(settings.task, name)
        if not named:
            samples = ", ".join(gym.samples(settings.task))
            problem = f"--samples is {name!r}: no such sample of {settings.task}"
            raise InputError(f"{problem}; give all, first, or some of {samples}")
        chosen |= dict.fromkeys(named)
    return list(chosen)


def check_files(settings: FinetuneSettings, gym: Gym) -> None:
    """Raises InputError for task files that are missing or malformed, or have no options to rank."""
    task, parts = settings.task, ["train", "dev", *(["test"] if settings.do_predict else [])]
    metric = gym.metric(task)
    for sample in settings.samples:
        for part in parts:
            gym.examples(task, part, sample)
    if settings.scoring == "rank" and find_options(task, metric, [gym]).name is None:
        raise InputError(
            f"--scoring is rank, but {task} has no answer options: an options field in .jsonl files, a list "
            "(A) ... (B) ... in the inputs, or a few labels; give --scoring generate"
        )


def check_output_dir(settings: FinetuneSettings) -> None:
    """Raises InputError for a folder with other files, with a run of another command or of other settings."""
    folder = Path(settings.output_dir)
    if reason := unwritable(folder):
        raise InputError(f"--output_dir {reason}")
    saved = load_run_settings(folder)
    if saved is None:
        if problems := foreign_problems(folder, ("config.json", "best", "last", "results.csv")):
            raise InputError(problems)
    elif "task_dir" not in saved:
        raise InputError(f"--output_dir {folder} holds a run of another command; name another folder")
    elif any((folder / "configurations").glob("*.json")):  # a grid without results may change
        changed = differences(settings, saved, f"the grid in {folder}", ignored=existing_paths(settings))
        if changed:
            raise InputError([*changed[:-1], f"{changed[-1]}; for other settings name another --output_dir"])


# ---- the start and the route


def check_start(settings: FinetuneSettings, start: SavedMixture | SavedBart) -> None:
    """Raises InputError for a start of another kind, for texts longer than it reads, without a tokenizer."""
    config, place = start.config, start.place
    if problems := position_problems(settings, config.max_position_embeddings, place):
        raise InputError(problems)
    load_start_tokenizer(place, settings.model, config.vocab_size)
    if not settings.moe_init:
        with problem_context("--checkpoint "):
            check_one_expert(start, f"start from it with --moe_init --init_dir {settings.checkpoint}")
    elif config.num_experts == 1:
        raise InputError(f"--init_dir {place} has one expert, a plain BART; give it as --checkpoint")


def check_route_training(settings: FinetuneSettings, start: SavedMixture) -> None:
    """Raises InputError for a --route_training that the kind of route does not allow."""
    config, training = start.config, settings.route_training
    source = settings.route_source or config.route_source
    if training in ("vector", "router") and source != "learned":
        raise InputError(
            f"--route_training is {training}, but {source} routes use no router; give plain or fixed, or "
            "leave it out"
        )
    if training in ("plain", "fixed") and source == "random":
        raise InputError(
            f"--route_training is {training}, but random routes differ between examples and steps; give "
            "merged or logits, or leave it out"
        )
    averages = route_kind(settings, config) in ("average", "unknown")
    if training == "plain" and averages and not config.has_plain_routes:
        raise InputError(
            f"--route_training is plain, but all experts have equal weights for {settings.task}, and "
            "averaged outputs have no equivalent plain BART; give fixed, or merged to average parameters"
        )
    learns = training in ("vector", "router") or settings.task_vector == "learned"
    if source == "learned" and config.is_top_1 and learns:
        raise InputError(
            f"{start.checkpoint} has top-1 routes, whose weight is always 1, so a vector gets no gradient; "
            "give --task_vector stored or nearest, and --route_training plain or fixed, or leave them out"
        )


def check_route_source(settings: FinetuneSettings, start: SavedMixture, gym: Gym) -> None:
    """Raises InputError unless what the route is found by is there and fits: a file, vectors, texts."""
    config, task, kind = start.config, settings.task, route_kind(settings, start.config)
    if settings.task_routes:
        with problem_context("--task_routes "):
            check_scored_spec(settings.task_routes)
            if settings.by_loss:
                check_routes_differ(config)
        if not settings.by_loss:
            file_matrices(settings.task_routes, [task], config)
    elif settings.taskvecs and kind in ("given vector", "cluster"):
        with problem_context("--taskvecs "):
            vectors = GivenVectors.load(settings.taskvecs)
        check_rows(settings, vectors.names, gym, f"--taskvecs {settings.taskvecs}")
        vectors.check(start.checkpoint, config)
    elif kind == "stored vector":
        check_rows(settings, rows_read(config, task), gym, str(start.checkpoint))
    elif kind == "nearest vector":
        text_source(settings).check([task], vector_table(task, config).seen)
        if settings.text_vectors:
            names = load_task_vectors(settings.text_vectors)[0]
            check_rows(settings, names, gym, f"--text_vectors {settings.text_vectors}")


def check_rows(settings: FinetuneSettings, names: Collection[str], gym: Gym, where: str) -> None:
    """Raises InputError for a task without a row, and if only other samples of the task have one."""
    task, missing = settings.task, [sample for sample in settings.samples if sample not in names]
    if missing and any(sample in names for sample in gym.samples(task)):
        raise InputError(
            f"{where} has vectors of other samples of {task}, but none of {in_short(missing)}; compute them "
            "by --samples each, or leave these samples out"
        )
    if missing and task not in names:
        raise InputError(
            f"{where} has no vector for {task}, only for {in_short(list(names))}; give one by --taskvecs, or "
            "another --task_vector: nearest, learned"
        )
