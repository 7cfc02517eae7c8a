"""What the flags of the commands choose: the model, and the task with its route. Does not import torch."""

from pathlib import Path

from dataloader.errors import InputError, Problems, did_you_mean, in_short
from dataloader.gym import Gym
from dataloader.task_files import read_task_file
from routing_moe.answering.queries import STDIN, STDOUT, Query, problem_of, read_queries
from routing_moe.checkpoints.find import SavedMixture, find_model
from routing_moe.config.answer import AnswerSettings, ExportSettings
from routing_moe.config.flags import flag_problems
from routing_moe.io.files import new_folder_problems, unwritable
from routing_moe.task_choice.given_routes import file_matrices
from routing_moe.task_choice.given_vectors import GivenVectors


def check(settings: AnswerSettings | ExportSettings) -> None:
    """Raises one InputError for all wrong values, contradictions, missing files and unknown names."""
    problems = Problems(flag_problems(settings))
    if len(settings.ways) > 1:
        problems.append(f"{' and '.join(settings.ways)} each determine the route; give one of them")
    if set(settings.ways) & {"--taskvecs", "--task_routes"} and not settings.task:
        problems.append(f"{settings.ways[0]} needs --task, the task's name in it")
    start = problems.of(find_model, settings.checkpoint, settings.checkpoint_name, flag="checkpoint")
    exports = isinstance(settings, ExportSettings)
    if exports and (settings.adapters or settings.as_ == "adapter"):
        problems += adapter_problems(settings, start)
    if isinstance(start, SavedMixture) and not settings.ways and not (exports and settings.adapters):
        if settings.task is None and start.config.num_experts > 1:
            problems.append("--task is not given: name a task of the training, or give --like or --examples")
        elif settings.task is not None and (problem := without_route(start.config, settings.task)):
            problems.append(f"--task: {start.checkpoint} {problem}")
    for name in ("like", "examples", "inputs"):
        path = getattr(settings, name)
        if path and not Path(path).is_file() and (name, path) != ("inputs", STDIN):
            problems.append(f"--{name} {path}: no such file")
    if settings.train_dir:
        problems.of(Gym, settings.train_dir, flag="train_dir")
    if settings.taskvecs:
        problems.of(GivenVectors.load, settings.taskvecs, flag="taskvecs")
    problems += output_problems(settings)
    if problems:
        raise InputError(problems)


def adapter_problems(settings: ExportSettings, start) -> list[str]:
    """Returns problems of --adapters and --as adapter: other flags, and a model without low-rank experts."""
    one_route = [f"--{name}" for name in ("task", "argmax", "inputs") if getattr(settings, name)]
    one_route += [*settings.ways, *(["--as adapter"] if settings.as_ == "adapter" else [])]
    flag, problems = "--adapters" if settings.adapters else "--as adapter", []
    if settings.adapters:
        problems = [f"--adapters writes all experts, {other} one route" for other in one_route]
    elif settings.argmax:
        problems = ["--argmax is for routes that mix outputs of experts; --as adapter writes any route"]
    if start is not None and not start.config.has_lora:
        problems.append(f"{flag}: {start.place} has no low-rank experts (--expert_kind lora)")
    return problems


def output_problems(settings: AnswerSettings | ExportSettings) -> list[str]:
    if isinstance(settings, ExportSettings):
        return new_folder_problems("output_dir", settings.output_dir)
    problems = []
    if problem := problem_of(Query("text", settings.options)):
        problems.append(f"--options: {problem}")
    path = Path(settings.output_file)
    if settings.output_file == STDOUT:
        return problems
    for name in ("inputs", "like", "examples"):
        if (given := getattr(settings, name)) and Path(given).resolve() == path.resolve():
            problems.append(f"--output_file {path} is --{name}; name another file")
    if path.exists():
        return problems if problems or meta_file(path).exists() else [unknown_answers(path)]
    if not path.parent.is_dir():
        problems.append(f"--output_file {path}: no such folder {path.parent}")
    elif reason := unwritable(path.parent):
        problems.append(f"--output_file {reason}")
    return problems


def meta_file(path: Path) -> Path:
    """Returns the file beside a file of answers that says what they depend on."""
    return path.with_name(f"{path.stem}.meta.json")


def unknown_answers(path: Path) -> str:
    name = meta_file(path).name
    return f"--output_file {path} exists already, without {name}, and is not overwritten; name another file"


def without_route(config, task: str) -> str | None:
    """Returns why a mixture has no route of its own for a task, or None if it has. config: the mixture's."""
    if config.num_experts == 1 or config.route_source == "average":
        return None
    if config.route_source == "random":
        return "draws a route for each example; give the task's route, or examples"
    known = [name for name in config.task_names if name not in config.random_vectors]
    if task in known:
        return None
    hint = did_you_mean(task, known) or "."
    return (
        f"was not trained on {task!r}{hint} Its tasks: {in_short(sorted(known))}. The route of another task "
        "is found by its texts (--like, inputs=), or learned from labelled rows (--examples, examples=)"
    )


def chosen_task(routed, settings: AnswerSettings | ExportSettings):
    """Returns the `RoutedTask` of a `Routed` that the flags choose. Raises InputError."""
    config, name = routed.model.config, settings.name
    if name is None:  # of a model with one expert
        name = config.task_names[0] if len(config.task_names) == 1 else "task"
    if settings.like:
        inputs = [query.input for query in read_queries(settings.like)]
        return routed.task(name, inputs=inputs, gym=settings.train_dir)
    if settings.examples:
        rows, _ = read_task_file(settings.examples)
        pairs = [(row[0], row[1][0]) for row in rows]
        return routed.task(name, examples=pairs, steps=settings.steps, rate=settings.rate, seed=settings.seed)
    route = None
    if settings.task_routes:
        route = file_matrices(settings.task_routes, [name], config)[name]
    return routed.task(name, vectors=settings.taskvecs, route=route)
