"""Checks flags and data before a model is loaded or torch is imported; reports all faults at once.

Numbers, data and the run's folder are checked here, the model's start in `start_checks.py`.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from dataloader.encoding import TextFormat
from dataloader.errors import Faults, InputError, in_short
from dataloader.gym import Gym
from dataloader.ontology import Ontology
from dataloader.options import find_options
from dataloader.task_splits import Split, load_split
from routing_moe.config.flags import differences, flag_faults, with_valid_values
from routing_moe.config.train import TrainSettings
from routing_moe.io.files import unwritable
from routing_moe.io.precision import precision_faults
from routing_moe.io.run_folder import foreign_faults, load_run_settings
from routing_moe.model.given_routes import GivenRoutes
from routing_moe.results.run_cost import reference_cost
from routing_moe.task_choice.given_routes import training_routes
from routing_moe.task_choice.texts import TextSource
from routing_moe.training.start_checks import gives_routes, routing_fields, start_faults

ONTOLOGY_FILE = "ontology.json"  # of a gym


@dataclass(frozen=True)
class Inputs:
    """The checked data of a run."""

    train_gym: Gym
    predict_gym: Gym
    split: Split
    ontology: Ontology
    text_format: TextFormat
    texts: TextSource  # for the nearest task of a task without a vector
    routes: GivenRoutes | None = None  # of --task_routes, for training


def check_inputs(settings: TrainSettings) -> Inputs:
    """Opens and checks everything that the settings name. Raises one InputError with all faults."""
    faults = Faults(number_faults(settings))
    settings = with_valid_values(settings)
    data = Faults()  # reported after those of the flags
    train_gym, predict_gym, split, ontology = open_data(settings, data)
    routes = None
    if gives_routes(settings) and split and split.train and ontology:
        routes = faults.of(training_routes, settings, split, ontology)
    fields = routing_fields(settings, routes)
    faults += source_faults(settings, fields)
    text_format = faults.of(TextFormat.of, settings)
    faults += data
    if split and train_gym and predict_gym:
        faults += data_faults(settings, train_gym, predict_gym, split)
    faults += run_folder_faults(settings)
    if settings.do_train and settings.equal_flops:
        faults.of(reference_cost, settings.equal_flops)
    texts = None
    if train_gym and predict_gym and text_format:
        gyms = (train_gym, predict_gym)
        texts = TextSource(gyms, text_format, settings.text_vectors, settings.examples_per_file)
    faults += start_faults(settings, split, fields, texts, routes, ask_hub=not faults)
    if faults:
        raise InputError(dict.fromkeys(faults))
    return Inputs(train_gym, predict_gym, split, ontology, text_format, texts, routes)


def open_data(settings: TrainSettings, faults: Faults):
    """Returns the gyms of training and prediction, the split and the ontology; None for one with faults."""
    train_gym = faults.of(Gym, settings.train_dir, settings.skip_malformed, flag="train_dir")
    predict_gym = train_gym
    if settings.predict_dir != settings.train_dir:
        predict_gym = faults.of(Gym, settings.predict_dir, settings.skip_malformed, flag="predict_dir")
    split = None
    if train_gym and not settings.custom_tasks_splits and not split_path(settings).is_file():
        faults.append(
            f"--train_dir {settings.train_dir} has no split.json; name one with --custom_tasks_splits"
        )
    elif train_gym or settings.custom_tasks_splits:
        flag = "custom_tasks_splits" if settings.custom_tasks_splits else None
        split = faults.of(load_split, split_path(settings), flag=flag)
    flag = "task_ontology" if settings.task_ontology else None
    ontology = faults.of(Ontology.load, ontology_path(settings.train_dir, settings.task_ontology), flag=flag)
    return train_gym, predict_gym, split, ontology


def split_path(settings: TrainSettings) -> Path:
    """Returns `--custom_tasks_splits`, else the gym's `split.json`."""
    return Path(settings.custom_tasks_splits or Path(settings.train_dir) / "split.json")


def ontology_path(train_dir: str, task_ontology: str | None) -> Path | None:
    """Returns `--task_ontology`, else the gym's `ontology.json`, else None: the 160 CrossFit tasks'."""
    own = Path(train_dir) / ONTOLOGY_FILE
    return Path(task_ontology) if task_ontology else own if own.is_file() else None


def number_faults(settings: TrainSettings) -> list[str]:
    """Returns faults of numbers out of range, unknown choices and missing packages."""
    faults = flag_faults(settings) + precision_faults(settings)
    if settings.minimum_tau > settings.initial_tau:
        faults.append(
            f"--minimum_tau is {settings.minimum_tau}, above --initial_tau {settings.initial_tau}; "
            "the temperature falls from the initial to the minimum"
        )
    if settings.checkpoint and settings.checkpoint_name != "best":
        faults.append("--checkpoint and --checkpoint_name both name a checkpoint; give one of them")
    if not settings.do_train and not settings.do_predict:
        faults.append("nothing to do: give --do_train, --do_predict or both")
    for module, name in (("tensorboard", "tensorboard"), ("wandb", "wandb")):
        if settings.log_with == name and importlib.util.find_spec(module) is None:
            faults.append(f"--log_with is {name!r}, which needs: pip install {module}")
    return faults


def source_faults(settings: TrainSettings, fields: dict) -> list[str]:
    """Returns faults of route sources that exclude each other, and of more experts per route than exist."""
    given = [f"--{flag}" for flag in settings.selecting_flags]
    faults = []
    if len(given) > 1:
        faults.append(f"{' and '.join(given)} each set the source of routes; give one of them")
    counts = {
        "task_level_random_n": settings.task_level_random_routing,
        "router_top_k": fields["router_mode"] == "top_k",
    }
    for name, counts_experts in counts.items():
        n, E = getattr(settings, name), fields["num_experts"]
        if counts_experts and n is not None and n > E >= 1:
            faults.append(f"--{name} is {n}, but a layer has {E} experts")
    trains = settings.trains_router or settings.trains_task_vectors
    if settings.do_train and trains and counts["router_top_k"] and fields["router_top_k"] == 1:
        faults.append(
            "--router_top_k is 1: the weight of a top-1 route is always 1, so the router gets no gradient; "
            "give 2 or more, or --router_mode gumbel_softmax_st to learn the choice of one expert"
        )
    if settings.alternate_every and not (trains and fields["route_source"] == "learned"):
        faults.append("--alternate_every: router and task vectors are not trained, so nothing can alternate")
    return faults


def data_faults(settings: TrainSettings, train_gym: Gym, predict_gym: Gym, split: Split) -> list[str]:
    """Returns faults of missing or malformed files and unknown metrics of the tasks that the run reads."""
    faults = []
    if settings.do_train:
        if not split.train:
            faults.append(f"{split.path}: the train section is empty; there is nothing to train on")
        faults += task_faults(split, split.train, train_gym, ["train"], "all")
        faults += task_faults(split, split.train, predict_gym, ["dev"], settings.predict_samples)
    if settings.do_predict:
        tasks = split.section(settings.predict_split)
        if not tasks:
            faults.append(
                f"--predict_split is {settings.predict_split!r}, but this section of {split.path} is empty"
            )
        faults += task_faults(split, tasks, predict_gym, ["dev", "test"], settings.predict_samples)
    if settings.scoring == "rank" and not faults:
        faults += option_faults(settings, train_gym, predict_gym, split)
    return list(dict.fromkeys(faults))


def option_faults(settings: TrainSettings, train_gym: Gym, predict_gym: Gym, split: Split) -> list[str]:
    """Returns faults of --scoring rank: unreadable train files, sections in which no task has options."""
    parts = {"train": ["dev"]} if settings.do_train else {}
    if settings.do_predict:
        parts[settings.predict_split] = ["dev", "test"]
    faults = Faults()
    for section, of_section in parts.items():
        found = [
            faults.of(
                find_options,
                task,
                predict_gym.metric(task),
                (train_gym, predict_gym),
                predict_gym.examples(task, part, settings.predict_samples),
            )
            for task in split.section(section)
            for part in of_section
        ]
        if not any(source is None or source.name for source in found):
            faults.append(
                f"--scoring is rank, but no task of the {section} section of {split.path} has answer "
                "options: an options field in .jsonl files, a list (A) ... (B) ... in the inputs, or a few "
                "labels that recur in the train files; give generate"
            )
    return faults


def task_faults(split: Split, tasks, gym: Gym, parts: list[str], samples: str) -> list[str]:
    """Returns faults of tasks of a split: tasks that the gym lacks, then faults of its files."""
    known = set(gym.tasks())
    unknown = [task for task in tasks if task not in known]
    faults = [f"{split.path}: {fault}" for fault in gym.check(unknown, parts, metrics=False)]
    tasks = [task for task in tasks if task in known]
    if samples not in ("all", "first"):
        lacking = [task for task in tasks if not gym.has_sample(task, samples)]
        if lacking:
            faults.append(
                f"--predict_samples is {samples!r}: no such sample of {in_short(lacking)}; give all, first, "
                f"or a seed such as {gym.samples(lacking[0])[0].rsplit('_', 1)[-1]}"
            )
        tasks = [task for task in tasks if task not in lacking]
    return faults + gym.check(tasks, parts, samples)


def run_folder_faults(settings: TrainSettings) -> list[str]:
    """Returns faults of an output folder that holds another run, or this run with other settings."""
    folder = Path(settings.output_dir)
    if reason := unwritable(folder):
        return [f"--output_dir {reason}"]
    faults = Faults()
    saved = faults.of(load_run_settings, folder)
    if faults or not settings.do_train:
        return faults
    if saved is None:
        return foreign_faults(folder, ("config.json", "best", "last"))
    if not settings.resume:
        return [
            f"--output_dir {folder} already holds a run; give --resume to continue it, or name another folder"
        ]
    return differences(settings, saved, "the run to resume")
