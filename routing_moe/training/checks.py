"""What `routing-moe train` checks before it loads weights, so that a long run does not fail late.

`check_inputs` needs, in this order: flags that fit together, an output folder, a gym with a split, a model to
start from, and a vector or route of each task (`task_checks.py`). Each file is read by its one reader, which
raises InputError; the functions here add what no reader knows. `finished` says whether anything is left to
do. Torch, which takes seconds to import, is needed only for the configuration of the start.
"""

import importlib.util
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dataloader.encoding import TextFormat
from dataloader.errors import InputError, in_short, problem_context
from dataloader.gym import Gym
from dataloader.jsonfile import load_json_object
from dataloader.ontology import Ontology, ontology_path
from dataloader.options import find_options
from dataloader.task_splits import Split, load_split
from routing_moe.checkpoints.find import checkpoint_to_resume, checkpoint_to_start_from
from routing_moe.checkpoints.merge_stages import MERGE_FILE
from routing_moe.config.choices import BUILT_IN_SOURCES, TRACKERS, has_parameters
from routing_moe.config.flags import changed, differences, flag_problems, flags_of
from routing_moe.config.measures import needed
from routing_moe.config.shared import text_problems, with_texts_of
from routing_moe.config.train import TrainSettings
from routing_moe.io.files import unwritable
from routing_moe.io.hub import is_on_hub
from routing_moe.io.precision import precision_problems
from routing_moe.io.run_folder import CURVES_FILE, described_part, foreign_problems, load_run_settings
from routing_moe.model.given_routes import GivenRoutes
from routing_moe.model.task_vectors import load_task_vectors
from routing_moe.results.run_cost import COST_FILE, read_cost, reference_cost
from routing_moe.results.scores import ScoresFile
from routing_moe.task_choice.given_routes import given_checksums, training_routes
from routing_moe.task_choice.texts import TEXTS_FILE, TextSource
from routing_moe.training.task_checks import check_tasks

if TYPE_CHECKING:
    from routing_moe.model.configuration import RoutingBartConfig


# Flags that scores depend on besides those that a prediction inherits or a comparison of runs reports.
OF_SCORES = ("measures", "predict_samples", "text_vectors", "debug")
OF_UPDATES = ("lora_rank", "lora_alpha", "lora_targets", "lora_mixing", "lora_splits", "lora_dropout")


@dataclass(frozen=True)
class Inputs:
    """The checked inputs of a run."""

    settings: TrainSettings  # with the texts of the start
    train_gym: Gym
    predict_gym: Gym
    split: Split
    ontology: Ontology
    text_format: TextFormat
    texts: TextSource  # for the nearest task of a task without a vector
    config: "RoutingBartConfig"  # of the model that the run starts with
    routes: GivenRoutes | None = None  # of --task_routes, for training


def check_inputs(settings: TrainSettings, given: Collection[str] = (), writes: bool = True) -> Inputs:
    """Opens and checks everything that the settings name. Raises InputError.

    given: names of flags. writes: whether the run's folder is written to, which else may be read-only.
    """
    refuse(flag_problems(settings) + precision_problems(settings) + contradictions(settings))
    if writes:
        refuse(run_folder_problems(settings))
    train_gym, predict_gym, split, ontology = open_data(settings)
    check_data(settings, train_gym, predict_gym, split)
    checkpoint, resumed, routes = checkpoint_to_start_from(settings), checkpoint_to_resume(settings), None
    if settings.taskvecs and resumed is None:
        with problem_context("--taskvecs "):
            load_task_vectors(settings.taskvecs)
    if settings.do_train and settings.equal_flops and resumed is None:
        reference_cost(settings.equal_flops)
    place = checkpoint or settings.start.described
    # the model to start from
    if checkpoint is None and not settings.is_new:
        inside = [str(path.parent) for path in sorted(Path(place).glob("*/config.json"))]
        what = "no checkpoint there (a folder with a config.json)"
        what = what if Path(place).is_dir() else "no such folder"
        raise InputError(f"{place}: {what}{'; inside: ' if inside else ''}{in_short(inside)}")
    if settings.do_train and settings.task_routes and resumed is None:
        routes = training_routes(settings.start, split, ontology)
    from routing_moe.checkpoints.start import start_config

    config = start_config(settings, split, routes)
    is_continued = settings.resume and load_run_settings(Path(settings.output_dir))  # with its own texts
    if settings.do_train and not is_continued:
        settings = with_texts_of(settings, config, place, given)
    refuse(text_problems(settings, config, place))
    refuse(start_problems(settings, config))
    if routes:
        with problem_context(f"--task_routes {routes.source}: "):
            routes.matrices(*config.route_sizes)
    # a vector or route of each task
    text_format, limit = TextFormat.of(settings, config), settings.examples_per_file
    texts = TextSource((train_gym, predict_gym), text_format, settings.text_vectors, limit)
    check_tasks(settings, split, config, checkpoint, texts, new_routes=routes and routes.tasks)
    return Inputs(settings, train_gym, predict_gym, split, ontology, text_format, texts, config, routes)


def refuse(problems: list[str]) -> None:
    """Raises InputError if there are problems."""
    if problems:
        raise InputError(problems)


def contradictions(settings: TrainSettings) -> list[str]:
    """Returns errors in flags that exclude each other."""
    problems = []
    source = settings.route_source
    if source in BUILT_IN_SOURCES and source != "inputs":
        problems.append(f"--route_source is {source!r}; give inputs or a source of --plugin, or leave it out")
    for name in ("router_nn_type", "router_hidden_dim", "router_mode") if source == "inputs" else ():
        if (value := getattr(settings, name)) not in (None, "softmax"):
            problems.append(f"--{name} is {value}, but --route_source inputs is a linear map and a softmax")
    if len(settings.selecting_flags) > 1:
        sources = " and ".join(f"--{flag}" for flag in settings.selecting_flags)
        problems.append(f"{sources} each set the source of routes; give one of them")
    if settings.minimum_tau > settings.initial_tau:
        problems.append(
            f"--minimum_tau is {settings.minimum_tau}, above --initial_tau {settings.initial_tau}; the "
            "temperature falls from this to the minimum"
        )
    starts = {
        "initialize_from_vanilla": settings.is_new,
        "checkpoint": settings.checkpoint,
        "checkpoint_name": settings.checkpoint_name != "best",
    }
    if len(given := [f"--{flag}" for flag, value in starts.items() if value]) > 1:
        problems.append(f"{' and '.join(given)} each name a start; give one of them")
    if settings.do_train and not settings.is_new and settings.vanilla_checkpoint:
        problems.append("--vanilla_checkpoint has the weights of a new model, but a checkpoint is given")
    if settings.do_train and settings.is_new and settings.expert_kind != "lora":
        problems += [f"--{name} needs --expert_kind lora" for name in OF_UPDATES if getattr(settings, name)]
    if settings.equal_flops and settings.num_train_epochs:
        problems.append("--equal_flops and --num_train_epochs each end the run; give one of them")
    if settings.log_with in TRACKERS[1:] and importlib.util.find_spec(settings.log_with) is None:
        problems.append(f"--log_with is {settings.log_with!r}; it needs: pip install {settings.log_with}")
    learns = settings.do_train and settings.source_kind.reads_vectors
    if learns and settings.router_mode == "top_k" and settings.router_top_k == 1 and settings.trains_router:
        problems.append("--router_top_k is 1: the weight is always 1, without a gradient; give 2 or more")
    if learns and settings.is_new and settings.router_nn_type == "table":
        if settings.taskvecs:
            problems.append("--taskvecs: the task vectors of --router_nn_type table are its logits")
        if not settings.trains_task_vectors:
            problems.append("--router_nn_type table learns task vectors only; train them (--task_model_lr)")
    return problems


def start_problems(settings: TrainSettings, config: "RoutingBartConfig") -> list[str]:
    """Returns errors in flags that do not fit the model that a run starts with."""
    n, problems = settings.task_level_random_n, []
    if settings.task_level_random_routing and n > config.num_experts:
        problems.append(f"--task_level_random_n is {n}; there are {config.num_experts} experts")
    if not settings.do_train:
        return problems
    if settings.base_lr and not (settings.shared_base or config.has_lora):
        problems.append("--base_lr is for what experts share: give --shared_base, or --expert_kind lora")
    source, several = config.route_source, config.num_experts > 1
    trains_routes = settings.trains_router and has_parameters(source)
    if config.has_router:
        trains_routes = settings.trains_task_vectors or (settings.trains_router and not config.has_table)
    if settings.alternate_every and not (several and trains_routes):
        every = settings.alternate_every
        problems.append(f"--alternate_every is {every}, but only the model is trained; leave it out")
    if settings.contested_above is not None and several and not config.source_kind.per_task:
        reason = f"{source} routes differ among the examples of a task"
        problems.append(f"--contested_above is {settings.contested_above:g}, but {reason}; leave it out")
    return problems


# ---- the output folder


def run_folder_problems(settings: TrainSettings) -> list[str]:
    """Returns problems of an output folder that holds another run, or this run with other settings."""
    folder = Path(settings.output_dir)
    if reason := unwritable(folder):
        return [f"--output_dir {reason}"]
    saved = load_run_settings(folder)
    if not settings.do_train:
        return foreign_scores(settings, saved)
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
    sums = described_part(folder, "files")
    return differences(settings, saved, "the run to resume") + [
        f"{name.rpartition(' ')[0]}: not the file that the run in {folder} began with; restore it, or name "
        "another --output_dir"
        for name, checksum in checksums_of(settings).items()
        if sums.get(name, checksum) != checksum
    ]


def checksums_of(settings: TrainSettings) -> dict[str, str]:
    """Returns the SHA-256 of files that a run reads once, when it begins: given routes and vectors."""
    return given_checksums(settings.task_routes, taskvecs=settings.taskvecs)


def foreign_scores(settings: TrainSettings, saved: dict | None) -> list[str]:
    """Returns the problem of scores of a --checkpoint elsewhere that would replace others in the folder.

    saved: the settings of the run in the folder, None if it holds no run.
    """
    folder, place = Path(settings.output_dir), settings.checkpoint
    if settings.prefix:
        return []
    name = settings.checkpoint_name
    if place:  # as `run_prediction` names the folder of scores
        name = "best" if is_on_hub(place) else Path(place).name
    if not place or Path(place).resolve() in (folder.resolve(), (folder / name).resolve()):
        return scores_of_other_flags(settings, name)
    other = None if saved is None else f"the run {folder}"
    if other is None and (scored := scored_before(settings, name)) is not None:
        scored = scored.get("checkpoint") or str(folder / name)
        other = scored if Path(scored).resolve() != Path(place).resolve() else None
    what = f"--output_dir {folder} is for scores of {other}; name another folder for those of {place}"
    return [f"{what}, or give --prefix"] if other else scores_of_other_flags(settings, name)


def scores_of_other_flags(settings: TrainSettings, checkpoint_name: str) -> list[str]:
    """Returns problems of scores by other flags that those of this prediction would replace."""
    scored = scored_before(settings, checkpoint_name) or {}
    folder = Path(settings.output_dir, checkpoint_name)
    for name in ("predict_dir", "custom_tasks_splits"):
        own, other = getattr(settings, name), scored.get(name)
        if own and other and Path(own).resolve() != Path(other).resolve():
            return [f"{folder} has scores of --{name} {other}; to keep them, give --prefix"]
    flags = {name for name, flag in flags_of(settings).items() if flag.compared_as == "scoring"}
    values = {name: getattr(settings, name) for name in flags | {"predict_samples", "debug"}}
    found = changed(values, scored, f"the scores in {folder}")
    return [f"{line}; to keep them, give --prefix" for line in sorted(found)]


def scored_before(settings: TrainSettings, checkpoint_name: str) -> dict | None:
    """Returns the settings of the scores that a prediction would replace, None if there are none."""
    scores = ScoresFile(section=settings.predict_split, checkpoint_name=checkpoint_name)
    file = Path(settings.output_dir, scores.settings_path)
    if not file.is_file():
        return None
    return load_json_object(file, "the settings of scores").get("settings") or {}


def finished(settings: TrainSettings) -> str | None:
    """Returns a line for a resumed run of which nothing is left to do, None if there is something."""
    if not is_trained(settings) or run_folder_problems(settings):
        return None
    best = Path(settings.output_dir) / "best"
    if settings.do_predict:
        file = ScoresFile(section=settings.predict_split, prefix=settings.prefix)
        scores, description = (best.parent / path for path in (file.path, file.settings_path))
        is_scored = scores.is_file() and has_settings(description, settings.scored)
        return f"{settings.output_dir} is finished: scores in {scores}" if is_scored else None
    if settings.no_text_vectors or (best / TEXTS_FILE).is_file():
        return f"{settings.output_dir} is finished: best checkpoint in {best}"
    return None


def is_trained(settings: TrainSettings) -> bool:
    """Returns whether a resumed run has its cost.json, which is written after the last step."""
    if checkpoint_to_resume(settings) is None:
        return False
    try:
        return read_cost(settings.output_dir) is not None
    except InputError:  # a damaged file is written again
        return False


def has_settings(file: Path, scored: TrainSettings) -> bool:
    """Returns whether the scores that a file describes were made with the same settings."""
    try:
        saved = load_json_object(file, "the settings of scores")["settings"]
    except (InputError, KeyError):
        return False
    values = {
        name: getattr(scored, name)
        for name, flag in flags_of(scored).items()
        if flag.inherited or flag.compared_as == "scoring" or name in OF_SCORES
    }
    return isinstance(saved, dict) and not changed(values, saved, "")


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
    """Raises InputError for files of tasks that cannot be read or scored: test files are read hours later."""
    sections = {"train": ["dev"]} if settings.do_train else {}  # {section: the parts that are scored}
    if settings.do_predict:
        sections[settings.predict_split] = ["dev", "test"]
    if settings.do_train and not split.train:
        raise InputError(f"{split.path}: the train section is empty; there is nothing to train on")
    if settings.do_predict and not split.section(settings.predict_split):
        raise InputError(
            f"--predict_split is {settings.predict_split!r}, but this section of {split.path} is empty"
        )
    samples, reads = settings.predict_samples, []
    if settings.do_train:
        reads = [(train_gym, split.train, ["train"], "all")]
    reads += [(predict_gym, split.section(section), parts, samples) for section, parts in sections.items()]
    for gym, tasks, parts, chosen in reads:
        refuse(gym.lacking(tasks, split.path))
        for task in tasks:
            gym.metric(task)
        for part in parts:
            gym.pool(tasks, part, chosen)
    for section, parts in sections.items() if settings.reads_options else ():
        gyms, tasks = (train_gym, predict_gym), split.section(section)
        sources = [
            find_options(task, predict_gym.metric(task), gyms, predict_gym.examples(task, part, samples))
            for task in tasks
            for part in parts
        ]
        chooses = settings.do_train and section == "train" and "options" in needed([settings.select_by])
        flag = f"select_by is {settings.select_by}" if chooses else "scoring is rank"
        if (chooses or settings.scoring == "rank") and not any(source.name for source in sources):
            raise InputError(f"--{flag}, but no task of {split.path}, {section}, has answer options")
