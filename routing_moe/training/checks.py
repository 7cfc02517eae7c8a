"""The checks of `routing-moe train`, before weights are loaded.

First names, ranges and files, without torch, which takes seconds to import; then what the configuration of
the start tells. The errors of each of the two are reported together.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dataloader.encoding import TextFormat
from dataloader.errors import InputError, Problems, in_short, problem_context
from dataloader.gym import Gym
from dataloader.ontology import Ontology
from dataloader.task_splits import Split
from routing_moe.checkpoints.find import (
    SavedMixture,
    checkpoint_to_resume,
    checkpoint_to_start_from,
    find_bart,
    find_vanilla,
)
from routing_moe.checkpoints.merge_stages import MERGE_FILE
from routing_moe.config.choices import TRACKERS
from routing_moe.config.flags import differences, flag_problems, with_valid_values
from routing_moe.config.shared import position_problems
from routing_moe.config.train import ROUTING_FLAGS, TrainSettings
from routing_moe.io.files import unwritable
from routing_moe.io.precision import precision_problems
from routing_moe.io.run_folder import CURVES_FILE, foreign_problems, load_run_settings
from routing_moe.model.given_routes import GivenRoutes
from routing_moe.model.task_vectors import load_task_vectors
from routing_moe.results.run_cost import COST_FILE, reference_cost
from routing_moe.task_choice.choice import VectorTable
from routing_moe.task_choice.given_routes import (
    check_routes_differ,
    check_scored_spec,
    described,
    file_matrices,
    names_file,
    training_routes,
)
from routing_moe.task_choice.given_vectors import GivenVectors
from routing_moe.task_choice.texts import TextSource
from routing_moe.training.data_checks import data_problems, open_data

if TYPE_CHECKING:
    from routing_moe.model.configuration import RoutingBartConfig


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
    """Opens and checks everything that the settings name.

    Raises InputError with all errors in names and files, and if there are none, with those in the start.
    """
    problems = Problems(number_problems(settings) + contradictions(settings))
    settings = with_valid_values(settings)
    train_gym, predict_gym, split, ontology = open_data(settings, problems)
    text_format = problems.of(TextFormat.of, settings)
    if split and train_gym and predict_gym:
        problems += data_problems(settings, train_gym, predict_gym, split)
    problems += run_folder_problems(settings)
    if settings.do_train and settings.equal_flops:
        problems.of(reference_cost, settings.equal_flops)
    problems += start_file_problems(settings, split)
    routes = None
    if gives_routes(settings) and split and split.train and ontology:
        routes = problems.of(training_routes, settings.start, split, ontology)
    if problems:
        raise InputError(dict.fromkeys(problems))
    from routing_moe.checkpoints.start import start_config

    texts = TextSource(
        (train_gym, predict_gym), text_format, settings.text_vectors, settings.examples_per_file
    )
    config = start_config(settings, split, routes)
    if problems := config_problems(settings, split, config, texts, routes):
        raise InputError(dict.fromkeys(problems))
    return Inputs(train_gym, predict_gym, split, ontology, text_format, texts, config, routes)


def number_problems(settings: TrainSettings) -> list[str]:
    """Returns problems of numbers out of range, unknown choices and missing packages."""
    problems = flag_problems(settings) + precision_problems(settings)
    if settings.minimum_tau > settings.initial_tau:
        problems.append(
            f"--minimum_tau is {settings.minimum_tau}, above --initial_tau {settings.initial_tau}; "
            "the temperature falls from the initial to the minimum"
        )
    if settings.log_with in TRACKERS[1:] and importlib.util.find_spec(settings.log_with) is None:
        problems.append(f"--log_with is {settings.log_with!r}, which needs: pip install {settings.log_with}")
    return problems


def contradictions(settings: TrainSettings) -> list[str]:
    """Returns errors in flags that exclude each other."""
    problems, sources = [], [f"--{flag}" for flag in settings.selecting_flags]
    is_new = settings.do_train and settings.initialize_from_vanilla
    if len(sources) > 1:
        problems.append(f"{' and '.join(sources)} each set the source of routes; give one of them")
    if sources and settings.num_experts == 1:
        problems.append(f"{sources[0]} chooses among experts, but --num_experts is 1; give one of them")
    named = "checkpoint" if settings.checkpoint else "checkpoint_name"
    if is_new and (settings.checkpoint or settings.checkpoint_name != "best"):
        problems.append(f"--initialize_from_vanilla and --{named} both name a start; give one of them")
    if settings.checkpoint and settings.checkpoint_name != "best":
        problems.append("--checkpoint and --checkpoint_name both name a checkpoint; give one of them")
    if settings.do_train and not is_new:
        of_new = {
            "--vanilla_checkpoint has the weights of a new model": settings.vanilla_checkpoint,
        }
        problems += [f"{what}: leave --{named} out" for what, given in of_new.items() if given]
    if is_new and settings.router_nn_type == "table" and settings.route_source in (None, "learned"):
        problems += table_problems(settings)
    if settings.by_loss and settings.taskvecs and not settings.do_train:
        problems.append(
            f"--taskvecs and --task_routes {settings.task_routes} both choose the routes of tasks that were "
            "not trained on; give one of them"
        )
    return problems


def table_problems(settings: TrainSettings) -> list[str]:
    """Returns errors of flags of task vectors that are the logits of a table router."""
    problems = []
    if settings.taskvecs:
        problems.append(
            f"--taskvecs {settings.taskvecs}: the task vectors of --router_nn_type table are its logits; "
            "leave the flag out"
        )
    if not settings.trains_task_vectors:
        flag = "--freeze_task_model" if settings.freeze_task_model else "--task_model_lr 0"
        problems.append(f"{flag}: --router_nn_type table learns nothing but task vectors; leave the flag out")
    return problems


def run_folder_problems(settings: TrainSettings) -> list[str]:
    """Returns problems of an output folder that holds another run, or this run with other settings."""
    folder = Path(settings.output_dir)
    if reason := unwritable(folder):
        return [f"--output_dir {reason}"]
    problems = Problems()
    saved = problems.of(load_run_settings, folder)
    if problems or not settings.do_train:
        return problems
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


# ---- the start: names and files


def gives_routes(settings: TrainSettings) -> bool:
    """Returns whether training starts with the routes of `--task_routes`; a resumed run has them already."""
    return bool(settings.task_routes) and settings.do_train and checkpoint_to_resume(settings) is None


def start_file_problems(settings: TrainSettings, split: Split | None) -> list[str]:
    """Returns errors of models, task vectors and routes that are not where the flags say."""
    problems = Problems()
    if settings.vanilla_checkpoint:
        problems.of(find_vanilla, settings.vanilla_checkpoint, flag="vanilla_checkpoint")
    unseen = split and set(split.section(settings.predict_split)) - set(split.train)
    reads_vectors = settings.do_train or unseen  # train tasks keep those of the training
    if settings.taskvecs and reads_vectors and not gives_routes(settings):  # `training_routes` reads them
        problems.of(GivenVectors.load, settings.taskvecs, flag="taskvecs")
    if checkpoint_to_start_from(settings):
        return list(problems)
    if settings.do_train and settings.initialize_from_vanilla:
        problems.of(find_bart, settings.model, flag="model")
    elif settings.do_train or settings.do_predict:
        flags = f"--checkpoint {settings.checkpoint}"
        if not settings.checkpoint:
            flags = f"--output_dir {settings.output_dir} --checkpoint_name {settings.checkpoint_name}"
        hint = "; to train from --model name no checkpoint" if settings.do_train else ""
        problems.append(f"{flags}: no checkpoint there (a folder with a config.json){hint}")
    return list(problems)


# ---- the start: its configuration


def config_problems(
    settings: TrainSettings,
    split: Split,
    config: "RoutingBartConfig",
    texts: TextSource,
    routes: GivenRoutes | None,
) -> list[str]:
    """Returns errors of flags that do not fit the model, and of tasks that it has no vector or route for.

    config: of the model that the run starts with. routes: of --task_routes for training.
    """
    checkpoint = checkpoint_to_start_from(settings)
    problems = Problems(expert_problems(settings, config))
    problems += position_problems(settings, config.max_position_embeddings, checkpoint or settings.model)
    if routes:
        problems.of(routes.matrices, *config.route_sizes, flag=f"task_routes {routes.source}:")
    problems += missing_task_problems(settings, split, config, checkpoint, routes)
    given_tasks = set()
    if checkpoint and not settings.do_train:
        problems += scored_route_problems(settings, split, config)
        if settings.by_loss:
            problems.of(check_routes_differ, config, flag="task_routes")
        given_tasks = problems.of(tasks_given, settings, split, config, checkpoint) or given_tasks
        if not settings.prefix:
            problems += overwriting_problems(settings, checkpoint)
    if settings.do_predict and config.has_router and not settings.by_loss:
        is_new = checkpoint is None and not settings.taskvecs
        random = set(config.task_names if is_new else config.random_vectors) - given_tasks
        random -= set(split.train if settings.do_train else ())
        table = VectorTable({*config.task_names, *given_tasks}, random, split.train)
        if needing := table.needing_nearest(split.section(settings.predict_split), settings.task_vector):
            problems.of(texts.check, needing, table.seen)
    by_text = config.given_routes and settings.task_vector == "nearest" and not settings.task_routes
    if settings.do_predict and by_text:
        table = VectorTable(config.task_names, (), split.train)
        if needing := sorted(set(split.section(settings.predict_split)) - table.known - given_tasks):
            problems.of(texts.check, needing, table.seen)
    return list(problems)


def expert_problems(settings: TrainSettings, config: "RoutingBartConfig") -> list[str]:
    """Returns errors of numbers of experts, and of a router that is not trained or cannot be."""
    problems = []
    trains = config.has_router and (settings.trains_router or settings.trains_task_vectors)
    if settings.task_level_random_routing and settings.task_level_random_n > config.num_experts:
        problems.append(
            f"--task_level_random_n is {settings.task_level_random_n}, but a layer has {config.num_experts} "
            "experts"
        )
    if settings.do_train and trains and config.is_top_1:
        problems.append(
            "--router_top_k is 1: the weight of a top-1 route is always 1, so the router gets no gradient; "
            "give 2 or more, or --router_mode gumbel_softmax_st to learn the choice of one expert"
        )
    if settings.do_train and settings.shared_base and not settings.base_lr:
        problems.append("--shared_base trains what experts share, but --base_lr is 0; leave one of them out")
    if settings.do_train and settings.base_lr and not (settings.shared_base or config.has_lora):
        problems.append("--base_lr: complete layers share nothing; give --shared_base, too")
    if settings.do_train and settings.alternate_every and not trains:
        problems.append(
            "--alternate_every: router and task vectors are not trained, so nothing can alternate"
        )
    return problems


def missing_task_problems(
    settings: TrainSettings,
    split: Split,
    config: "RoutingBartConfig",
    checkpoint: Path | None,
    routes: GivenRoutes | None,
) -> list[str]:
    """Returns the error of tasks that the model has no vector or route for, if they cannot do without."""
    if not config.routes_by_task or routes:
        return []
    needed = set(split.train) if settings.do_train else set()
    stored_only = not config.has_router or settings.task_vector == "stored"
    # Among given routes, a task without one gets equal weights.
    averages = config.route_source == "fixed" and (settings.task_routes or config.given_routes)
    if settings.do_predict and stored_only and not averages:
        needed |= set(split.section(settings.predict_split))
    if settings.by_loss:  # other tasks get the route of one of these
        needed = trained_on(config, split).intersection(split.section(settings.predict_split))
    missing = sorted(needed - set(config.task_names))
    if not missing:
        return []
    if checkpoint is None:
        return [f"--taskvecs {settings.taskvecs} has no vector for {in_short(missing)}"]
    kind = "task vector" if config.has_router else "route"
    hint = ""
    if config.has_router and settings.task_vector == "stored" and not settings.do_train:
        hint = "; without --task_vector stored, they get the vector of their nearest task"
    return [
        f"{checkpoint} has no {kind} for {in_short(missing)}; it knows the tasks of the split that it was "
        f"trained with{hint}"
    ]


def scored_route_problems(settings: TrainSettings, split: Split, config: "RoutingBartConfig") -> list[str]:
    """Returns errors of `--task_routes`, a file with routes of scored tasks, for a checkpoint."""
    problems = Problems()
    if settings.route_source != "fixed" or not settings.task_routes:
        return []
    if names_file(settings.task_routes):
        problems.of(file_matrices, settings.task_routes, split.section(settings.predict_split), config)
    elif described(settings.start) != config.given_routes:
        problems.of(check_scored_spec, settings.task_routes, flag="task_routes")
    return list(problems)


def tasks_given(
    settings: TrainSettings, split: Split, config: "RoutingBartConfig", checkpoint: Path
) -> set[str]:
    """Returns the scored tasks that take their vector from `--taskvecs`, none of them trained on.

    Raises InputError if the model cannot read the vectors, if none is of such a task, or if they replace
    different stored vectors without a --prefix for the scores.
    """
    untrained = set(split.section(settings.predict_split)) - trained_on(config, split)
    if not settings.taskvecs or not untrained or not config.routes_by_task:
        return set()
    if not (config.has_router or config.route_parts):
        raise InputError(
            f"--taskvecs {settings.taskvecs}: the routes of {checkpoint} do not depend on vectors; train "
            "with --taskvecs to route other tasks by theirs"
        )
    with problem_context("--taskvecs "):
        vectors = GivenVectors.load(settings.taskvecs)
    vectors.check(checkpoint, config)
    given = untrained & set(vectors.names)
    if not given:
        raise InputError(f"--taskvecs {settings.taskvecs} has no vector for {in_short(sorted(untrained))}")
    stored = dict(zip(*load_task_vectors(checkpoint), strict=True))
    rows, learned = vectors.by_name, given & set(stored) - set(config.random_vectors)
    replaced = [task for task in sorted(learned) if (stored[task] != rows[task]).any()]
    if replaced and not settings.prefix:
        raise InputError(
            f"{checkpoint} has other task vectors of {in_short(replaced)}; to score them with those of "
            f"--taskvecs {settings.taskvecs} give --prefix, so that its own scores are not overwritten"
        )
    return given


def trained_on(config: "RoutingBartConfig", split: Split) -> set[str]:
    """Returns the tasks that a checkpoint was trained on; if it lists none, the split's train tasks."""
    return set(config.trained_tasks or split.train)


def overwriting_problems(settings: TrainSettings, checkpoint: Path) -> list[str]:
    """Returns errors of a prediction with another source of routes, which overwrites the run's scores."""
    saved = SavedMixture(checkpoint).config
    other = [
        f"--{flag} {getattr(saved, flag)}"
        for flag in ROUTING_FLAGS
        if getattr(settings, flag) not in (None, getattr(saved, flag))
    ]
    redrawn = settings.task_level_random_routing and saved.given_routes
    chosen = settings.by_loss and saved.has_router  # other choices of given routes replace each other
    if settings.route_source not in (None, saved.route_source) or redrawn or chosen:
        given = saved.given_routes
        other.insert(0, f"given routes ({given})" if given else f"{saved.route_source} routes")
    if not other:
        return []
    return [
        f"{checkpoint} was trained with {' and '.join(other)}; to score it with other routes give --prefix, "
        "so that its own scores are not overwritten"
    ]
