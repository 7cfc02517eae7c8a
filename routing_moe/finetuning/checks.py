"""The checks of `routing-moe finetune`: whether flags, task, samples, route and start fit together.

Each file is opened by its one reader, which raises InputError. No weights are loaded. Does not import torch.
"""

import dataclasses
import os
from collections.abc import Collection
from pathlib import Path

from dataloader.encoding import TextFormat
from dataloader.errors import InputError, did_you_mean, in_short, problem_context
from dataloader.gym import Gym
from dataloader.options import find_options
from routing_moe.checkpoints.find import SavedMixture, SavedPlain, check_one_expert, find_start
from routing_moe.checkpoints.tokenizer_files import load_start_tokenizer
from routing_moe.config.choices import BUILT_IN_SOURCES, kind_of
from routing_moe.config.finetune import SINGLE, FinetuneSettings
from routing_moe.config.flags import differences, existing_paths, flag_problems
from routing_moe.config.measures import needed
from routing_moe.config.shared import last_step, text_problems, with_texts_of
from routing_moe.io.files import unwritable
from routing_moe.io.precision import precision_problems
from routing_moe.io.run_folder import foreign_problems, load_run_settings
from routing_moe.model.task_vectors import load_task_vectors
from routing_moe.task_choice.choice import GivenVectors, Resolver, missing_row_error, rows_read
from routing_moe.task_choice.given_routes import check_routes_differ, check_scored_spec, file_matrices
from routing_moe.task_choice.texts import TextSource

# Of the output folder; without run.json they are something else's.
FILES = ("config.json", "best", "last", "results.csv", "configurations", "models", "predictions")
OF_MIXTURE = ("init_dir", "init_checkpoint_name", "route_training", "taskvecs", "text_vectors", "train_dir")


def check_finetuning(
    settings: FinetuneSettings, given_flags: Collection[str]
) -> tuple[FinetuneSettings, Gym, SavedMixture | SavedPlain]:
    """Returns the settings with lists, samples and texts filled in, the gym, and the start, not loaded.

    given_flags: names; texts are otherwise read as the start was trained to read them,
    because another format lowers scores without a warning. Raises InputError.
    """
    check_flags(settings)
    settings = settings.with_lists()
    gym = open_gym(settings)
    settings = dataclasses.replace(settings, samples=tuple(chosen_samples(settings, gym)))
    check_files(settings, gym)
    start = find_start(settings.start, settings.moe_init)
    settings = with_texts_of(settings, start.config, start.place, given_flags)
    TextFormat.of(settings)  # which raises for lengths that hold no token
    check_output_dir(settings)
    check_start(settings, start)
    if settings.moe_init:
        check_route_training(settings, start.config, check_route_source(settings, start, gym), start.place)
    return settings, gym, start


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
    of_mixture = sources + [f"--{flag}" for flag in OF_MIXTURE if getattr(settings, flag)]
    if of_mixture and not settings.moe_init:
        problems.append(f"{of_mixture[0]} is for the start from a mixture: give --moe_init")
    if settings.taskvecs and settings.task_vector != "auto":
        problems.append(f"--taskvecs and --task_vector {settings.task_vector} both choose a vector; give one")
    if settings.do_train and (settings.warmup_steps or 0) >= settings.total_steps:
        problem = f"the learning rate would rise until the last of --total_steps {settings.total_steps}"
        problems.append(f"--warmup_steps {settings.warmup_steps}: {problem}; give fewer")
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
        problem = f"but --task_dir is the folder of {folder.name!r}; leave --dataset out"
        raise InputError(f"--dataset is {settings.dataset!r}, {problem}")
    return Gym(settings.gym_dir, settings.skip_malformed)


def chosen_samples(settings: FinetuneSettings, gym: Gym) -> list[str]:
    """Returns the prefixes of the samples of `--samples`."""
    chosen = {}
    for name in settings.samples:
        with problem_context("--task_dir "):
            named = gym.named_samples(settings.task, name)
        if not named:
            advice = f"give all, first, or some of {', '.join(gym.samples(settings.task))}"
            raise InputError(f"--samples is {name!r}: no such sample of {settings.task}; {advice}")
        chosen |= dict.fromkeys(named)
    return list(chosen)


def check_files(settings: FinetuneSettings, gym: Gym) -> None:
    """Raises InputError for task files that are missing or malformed, or have no options to rank."""
    task, parts = settings.task, ["train", "dev", *(["test"] if settings.do_predict else [])]
    metric = gym.metric(task)
    for sample in settings.samples:
        rows = {part: len(gym.examples(task, part, sample)) for part in parts}
        check_epochs(settings, sample, rows["train"])
    chooses = "options" in needed([settings.select_by])
    flag = f"select_by is {settings.select_by}" if chooses else "scoring is rank"
    if (chooses or settings.scoring == "rank") and find_options(task, metric, [gym]).name is None:
        raise InputError(f"--{flag}, but {task} has no answer options; give another value")


def check_epochs(settings: FinetuneSettings, sample: str, n_examples: int) -> None:
    """Raises InputError if --num_train_epochs ends a configuration while the learning rate still rises."""
    step = last_step(settings, n_examples, max(settings.bsz_list) * settings.gradient_accumulation_steps)
    if settings.do_train and step <= settings.warmup_steps:
        raise InputError(
            f"--num_train_epochs {settings.num_train_epochs:g} ends the training on {sample} at step {step}, "
            f"but the learning rate rises until step {settings.warmup_steps}; leave the flag out, or give "
            "fewer --warmup_steps"
        )


def check_output_dir(settings: FinetuneSettings) -> None:
    """Raises InputError for a folder with other files, with a run of another command or of other settings."""
    folder = Path(settings.output_dir)
    if reason := unwritable(folder):
        raise InputError(f"--output_dir {reason}")
    saved = load_run_settings(folder)
    if saved is None:
        if problems := foreign_problems(folder, FILES):
            raise InputError(problems)
    elif "task_dir" not in saved:
        raise InputError(f"--output_dir {folder} holds a run of another command; name another folder")
    elif any((folder / "configurations").glob("*.json")):  # a grid without results may change
        changed = differences(settings, saved, f"the grid in {folder}", ignored=existing_paths(settings))
        if changed:
            raise InputError([*changed[:-1], f"{changed[-1]}; for other settings name another --output_dir"])


# ---- the start and the route


def check_start(settings: FinetuneSettings, start: SavedMixture | SavedPlain) -> None:
    """Raises InputError for a start of another kind, for texts longer than it reads, without a tokenizer."""
    config, place = start.config, start.place
    if problems := text_problems(settings, config, place):
        raise InputError(problems)
    load_start_tokenizer(place, settings.model, config.vocab_size)
    if not settings.moe_init:
        with problem_context("--checkpoint "):
            check_one_expert(start, f"start from it with --moe_init --init_dir {settings.checkpoint}")
    elif config.num_experts == 1:
        raise InputError(f"--init_dir {place} has one expert, a plain model; give it as --checkpoint")


def check_route_source(settings: FinetuneSettings, start: SavedMixture, gym: Gym) -> str:
    """Returns what the task's route comes from. Raises InputError unless that is there and fits."""
    config, task = start.config, settings.task
    if settings.task_routes:
        with problem_context("--task_routes "):
            check_scored_spec(settings.task_routes)
            if settings.by_loss:
                check_routes_differ(config)
    if keeps_source(settings, config):
        return settings.chosen_source or config.route_source
    resolver = resolver_of(settings, config)
    way = resolver.way(task, settings.samples[0])
    if resolver.vectors:
        check_rows(settings, resolver.vectors.names, gym, f"--taskvecs {settings.taskvecs}")
        resolver.vectors.check(start.place, config)
    elif way == "stored_vector":
        check_rows(settings, rows_read(config, task), gym, str(start.place))
    elif way == "nearest_task":
        text_source(settings, config).check([task], resolver.seen)
        if settings.text_vectors:
            names = load_task_vectors(settings.text_vectors)[0]
            check_rows(settings, names, gym, f"--text_vectors {settings.text_vectors}")
    return way


def check_route_training(settings: FinetuneSettings, config, way: str, place) -> None:
    """Raises InputError for a --route_training that the kind of route does not allow. way: of the route."""
    source, training = settings.chosen_source or config.route_source, settings.route_training
    kind, problem = kind_of(source), None
    if training in ("vector", "router") and not kind.reads_vectors:
        problem = f"{source} routes use no router; give plain or fixed, or leave it out"
    elif training and (kind.reads_inputs or source not in BUILT_IN_SOURCES):
        problem = f"the routes come from {source!r} in every step; leave it out"
    elif training in ("plain", "fixed") and kind.is_drawn:
        problem = "random routes differ between examples and steps; give merged or logits, or leave it out"
    elif training == "plain" and way == "average" and not config.has_plain_routes:
        problem = "all experts have equal weights, whose outputs no plain model has; give fixed or merged"
    if problem:
        raise InputError(f"--route_training is {training}, but {problem}")
    learns = training in ("vector", "router") or settings.task_vector == "learned"
    if kind.reads_vectors and config.is_top_1 and learns:
        raise InputError(
            f"{place} has top-1 routes, whose weight is always 1, so a vector gets no gradient; "
            "give --task_vector stored or nearest, and --route_training plain or fixed, or leave them out"
        )


def check_rows(settings: FinetuneSettings, names: Collection[str], gym: Gym, where: str) -> None:
    """Raises InputError for a task without a row, and if only other samples of the task have one."""
    task, missing = settings.task, [sample for sample in settings.samples if sample not in names]
    if missing and any(sample in names for sample in gym.samples(task)):
        advice = "compute them by --samples each, or leave these samples out"
        raise InputError(
            f"{where} has vectors of samples of {task}, but not of {in_short(missing)}; {advice}"
        )
    if missing and task not in names:
        advice = "give one by --taskvecs, or another --task_vector: nearest, learned"
        raise missing_row_error(where, "vector", [task], names, advice)


# ---- what the route of the task comes from


def resolver_of(settings: FinetuneSettings, config) -> Resolver:
    """Returns what decides the task's route. config: that of a mixture with several experts.

    If the mixture's train tasks are unknown, all others than the task may be copied.
    """
    task, source = settings.task, settings.chosen_source or config.route_source
    trained = set(config.trained_tasks) or set(config.task_names) - {task}
    kind = kind_of(source)
    reads_vectors = kind.reads_vectors or (kind.is_stored and config.has_route_vectors)
    given = dict(rule=settings.task_vector if kind.reads_vectors else "auto", by_loss=settings.by_loss)
    if settings.task_routes and not settings.by_loss:
        given["routes"] = file_matrices(settings.task_routes, [task], config)
    elif settings.taskvecs and reads_vectors and not settings.by_loss:
        with problem_context("--taskvecs "):
            given["vectors"] = GivenVectors.load(settings.taskvecs)
    return Resolver.of(config, trained, source, **given)


def keeps_source(settings: FinetuneSettings, config) -> bool:
    """Returns whether nothing is chosen: the source has a route for each task, or one is drawn for it."""
    kind = kind_of(settings.chosen_source or config.route_source)
    if kind.is_stored:
        return not settings.task_routes and bool(settings.chosen_source or not config.given_routes)
    return not kind.reads_vectors


def text_source(settings: FinetuneSettings, config) -> TextSource:
    """Returns the source of texts: --text_vectors, or the gyms of --train_dir and of the task."""
    folders = [settings.train_dir] if settings.train_dir else []
    gyms = [Gym(folder, settings.skip_malformed) for folder in (*folders, settings.gym_dir)]
    text_format = TextFormat.of(settings, config)
    return TextSource(tuple(gyms), text_format, settings.text_vectors, settings.examples_per_file)
