"""What `routing-moe train` checks before it loads weights, so that a long run does not fail late.

`check_inputs` goes through flags, output folder, data, and the start of the run. Each file is read by its one
reader, which raises InputError; the functions here add what no reader knows: flags that contradict each
other, and flags and data that do not fit the model. `finished` says whether there is anything left to do.
Torch, which takes seconds to import, is needed only for the configuration of the start.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dataloader.encoding import TextFormat
from dataloader.errors import InputError, Problems, problem_context
from dataloader.gym import Gym
from dataloader.jsonfile import load_json_object
from dataloader.ontology import Ontology, ontology_path
from dataloader.options import find_options
from dataloader.task_splits import Split, load_split
from routing_moe.checkpoints.find import SavedMixture, checkpoint_to_resume, checkpoint_to_start_from
from routing_moe.checkpoints.merge_stages import MERGE_FILE
from routing_moe.config.choices import TRACKERS
from routing_moe.config.flags import changed, differences, flag_problems, flags_of
from routing_moe.config.shared import position_problems
from routing_moe.config.train import TrainSettings
from routing_moe.io.files import unwritable
from routing_moe.io.precision import precision_problems
from routing_moe.io.run_folder import CURVES_FILE, foreign_problems, load_run_settings
from routing_moe.model.given_routes import GivenRoutes
from routing_moe.results.run_cost import COST_FILE, read_cost, reference_cost
from routing_moe.results.scores import ScoresFile
from routing_moe.task_choice.given_routes import (
    training_routes,
)
from routing_moe.task_choice.texts import TEXTS_FILE, TextSource
from routing_moe.training.task_checks import TaskChecks, refuse

if TYPE_CHECKING:
    from routing_moe.model.configuration import RoutingBartConfig

# Flags that scores depend on besides those that a prediction inherits or a comparison of runs reports.
OF_SCORES = {"measures", "predict_samples", "text_vectors", "debug"}
NOT_OF_SCORES = {"predict_batch_size", "taskvecs"}  # the vectors are in the checkpoint


@dataclass(frozen=True)
class Inputs:
    """The checked inputs of a run."""

    train_gym: Gym
    predict_gym: Gym
    split: Split
    ontology: Ontology
    text_format: TextFormat
    texts: TextSource  # for the nearest task of a task without a vector
    config: "RoutingBartConfig"  # of the model that the run starts with
    routes: GivenRoutes | None = None  # of --task_routes, for training


def check_inputs(settings: TrainSettings) -> Inputs:
    """Opens and checks everything that the settings name. Raises InputError."""
    refuse(flag_problems(settings) + precision_problems(settings) + contradictions(settings))
    refuse(run_folder_problems(settings))
    train_gym, predict_gym, split, ontology = open_data(settings)
    check_data(settings, train_gym, predict_gym, split)
    if settings.do_train and settings.equal_flops and checkpoint_to_resume(settings) is None:
        reference_cost(settings.equal_flops)
    checkpoint = checkpoint_to_start_from(settings)
    if checkpoint is None and not settings.is_new:
        refuse(f"{settings.start.described}: no checkpoint there (a folder with a config.json)")
    routes = None
    if settings.do_train and settings.task_routes and checkpoint_to_resume(settings) is None:
        routes = training_routes(settings.start, split, ontology)
    from routing_moe.checkpoints.start import start_config

    config, text_format = start_config(settings, split, routes), TextFormat.of(settings)
    texts = TextSource(
        (train_gym, predict_gym), text_format, settings.text_vectors, settings.examples_per_file
    )
    if settings.task_level_random_routing and settings.task_level_random_n > config.num_experts:
        refuse(
            f"--task_level_random_n is {settings.task_level_random_n}; there are {config.num_experts} experts"
        )
    refuse(position_problems(settings, config.max_position_embeddings, checkpoint or settings.model))
    if routes:
        with problem_context(f"--task_routes {routes.source}: "):
            routes.matrices(*config.route_sizes)
    TaskChecks(settings, split, config, checkpoint, texts).check(has_new_routes=routes is not None)
    return Inputs(train_gym, predict_gym, split, ontology, text_format, texts, config, routes)


# ---- flags


def contradictions(settings: TrainSettings) -> list[str]:
    """Returns errors in flags that exclude each other."""
    problems, sources = [], " and ".join(f"--{flag}" for flag in settings.selecting_flags)
    named = "checkpoint" if settings.checkpoint else "checkpoint_name"
    has_name = settings.checkpoint_name != "best"
    if len(settings.selecting_flags) > 1:
        problems.append(f"{sources} each set the source of routes; give one of them")
    elif sources and settings.num_experts == 1:
        problems.append(f"{sources} chooses among experts, but --num_experts is 1; give one of them")
    if settings.minimum_tau > settings.initial_tau:
        falls = f"above --initial_tau {settings.initial_tau}; the temperature falls from this to the minimum"
        problems.append(f"--minimum_tau is {settings.minimum_tau}, {falls}")
    if settings.is_new and (settings.checkpoint or has_name):
        problems.append(f"--initialize_from_vanilla and --{named} both name a start; give one of them")
    if settings.checkpoint and has_name:
        problems.append("--checkpoint and --checkpoint_name both name a checkpoint; give one of them")
    if settings.do_train and not settings.is_new and settings.vanilla_checkpoint:
        problems.append(f"--vanilla_checkpoint has the weights of a new model: leave --{named} out")
    if settings.shared_base and settings.do_train and not settings.base_lr:
        problems.append("--shared_base trains what experts share, but --base_lr is 0; leave one of them out")
    if settings.by_loss and settings.taskvecs and not settings.do_train:
        problems.append("--taskvecs and --task_routes lowest_loss both choose routes; give one of them")
    if settings.log_with in TRACKERS[1:] and importlib.util.find_spec(settings.log_with) is None:
        problems.append(f"--log_with is {settings.log_with!r}; it needs: pip install {settings.log_with}")
    learns = settings.do_train and settings.route_source in (None, "learned")
    if learns and settings.router_mode == "top_k" and settings.router_top_k == 1 and settings.trains_router:
        problems.append("--router_top_k is 1: the weight is always 1, without a gradient; give 2 or more")
    if learns and settings.is_new and settings.router_nn_type == "table":
        if settings.taskvecs:
            problems.append("--taskvecs: the task vectors of --router_nn_type table are its logits")
        if not settings.trains_task_vectors:
            problems.append("--router_nn_type table learns task vectors only; train them (--task_model_lr)")
    return problems


# ---- the output folder


def run_folder_problems(settings: TrainSettings) -> list[str]:
    """Returns problems of an output folder that holds another run, or this run with other settings."""
    folder = Path(settings.output_dir)
    if reason := unwritable(folder):
        return [f"--output_dir {reason}"]
    saved = load_run_settings(folder)
    if not settings.do_train:
        return []
    if saved is None:
        merged = sorted(path.parent.name for path in folder.glob(f"*/{MERGE_FILE}"))
        if settings.initialize_from_vanilla and merged:
            start = f"to start from it give --checkpoint_name {merged[0]}, else name another folder"
            return [f"--output_dir {folder} holds the merged checkpoint {merged[0]}: {start}"]
        return foreign_problems(folder, ("config.json", "best", "last", "losses.csv", CURVES_FILE, COST_FILE))
    if not settings.resume:
        return [
            f"--output_dir {folder} already holds a run; give --resume to continue it, --do_predict to score "
            "it, or name another folder"
        ]
    return differences(settings, saved, "the run to resume")


def finished(settings: TrainSettings) -> str | None:
    """Returns a line for a resumed run of which nothing is left to do, None if there is something."""
    if not is_trained(settings) or run_folder_problems(settings):
        return None
    best = Path(settings.output_dir) / "best"
    if settings.do_predict:
        scores = scores_there(settings)
        return scores and f"{settings.output_dir} is finished: scores in {scores}"
    has_texts = settings.no_text_vectors or (best / TEXTS_FILE).is_file()
    if not has_texts and SavedMixture(best).config.routes_by_task:  # whose reader imports torch
        return None
    return f"{settings.output_dir} is finished: best checkpoint in {best}"


def is_trained(settings: TrainSettings) -> bool:
    """Returns whether a resumed run has its cost.json, which is written after the last step."""
    if checkpoint_to_resume(settings) is None:
        return False
    return Problems().of(read_cost, settings.output_dir) is not None  # a damaged file is written again


def scores_there(settings: TrainSettings) -> Path | None:
    """Returns the file of test scores of the best checkpoint with these settings, None if it is missing."""
    file = ScoresFile(section=settings.predict_split, prefix=settings.prefix)
    description, scores = (Path(settings.output_dir) / path for path in (file.settings_path, file.path))
    saved = (Problems().of(load_json_object, description, "the settings of scores") or {}).get("settings")
    flags = flags_of(settings).items()
    names = OF_SCORES | {name for name, flag in flags if flag.inherited or flag.compared_as == "scoring"}
    values = {name: getattr(settings, name) for name in names - NOT_OF_SCORES}
    same = isinstance(saved, dict) and not changed(values, saved, "")
    return scores if same and scores.is_file() else None


# ---- the data


def open_data(settings: TrainSettings) -> tuple[Gym, Gym, Split, Ontology]:
    """Returns the gyms of training and prediction, the split and the ontology. Raises InputError."""
    with problem_context("--train_dir "):
        train_gym = predict_gym = Gym(settings.train_dir, settings.skip_malformed)
    if settings.predict_dir != settings.train_dir:
        with problem_context("--predict_dir "):
            predict_gym = Gym(settings.predict_dir, settings.skip_malformed)
    split_path = Path(settings.train_dir) / "split.json"
    if settings.custom_tasks_splits:
        with problem_context("--custom_tasks_splits "):
            split = load_split(settings.custom_tasks_splits)
    elif split_path.is_file():
        split = load_split(split_path)
    else:
        raise InputError(f"--train_dir {settings.train_dir} has no split.json; give --custom_tasks_splits")
    with problem_context("--task_ontology " if settings.task_ontology else ""):
        ontology = Ontology.load(ontology_path(settings.train_dir, settings.task_ontology))
    return train_gym, predict_gym, split, ontology


def check_data(settings: TrainSettings, train_gym: Gym, predict_gym: Gym, split: Split) -> None:
    """Raises InputError for files of the run's tasks that cannot be read or scored.

    Test files are read hours after the first step, so that all files are read here, and kept.
    """
    sections = {"train": ["dev"]} if settings.do_train else {}  # {section: the parts that are scored}
    if settings.do_predict:
        sections[settings.predict_split] = ["dev", "test"]
    if settings.do_train and not split.train:
        raise InputError(f"{split.path}: the train section is empty; there is nothing to train on")
    if settings.do_predict and not split.section(settings.predict_split):
        raise InputError(
            f"--predict_split is {settings.predict_split!r}, but this section of {split.path} is empty"
        )
    reads = [(train_gym, split.train, ["train"], "all")] if settings.do_train else []
    for section, parts in sections.items():
        reads.append((predict_gym, split.section(section), parts, settings.predict_samples))
    for gym, tasks, parts, samples in reads:
        refuse(gym.lacking(tasks, split.path))
        for task in tasks:
            gym.metric(task)
        for part in parts:
            gym.pool(tasks, part, samples)
    if settings.reads_options:
        check_options(settings, (train_gym, predict_gym), split, sections)


def check_options(settings: TrainSettings, gyms: tuple[Gym, Gym], split: Split, sections: dict) -> None:
    """Raises InputError if no task of a section has answer options to rank. sections: {section: parts}."""
    gym = gyms[1]
    for section, parts in sections.items():
        sources = [
            find_options(task, gym.metric(task), gyms, gym.examples(task, part, settings.predict_samples))
            for task in split.section(section)
            for part in parts
        ]
        if settings.scoring == "rank" and not any(source.name for source in sources):
            raise InputError(
                f"--scoring is rank, but no task of the {section} section of {split.path} has answer "
                "options: an options field in .jsonl files, a list (A) ... (B) ... in the inputs, or a few "
                "labels that recur in the train files; give generate"
            )
