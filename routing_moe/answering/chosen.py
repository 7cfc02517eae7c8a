"""The task with its route that the flags of `answer` and `export` choose. Does not import torch."""

import os

from dataloader.errors import InputError, problem_context
from dataloader.task_files import read_task_file
from routing_moe.answering.queries import Query, read_queries
from routing_moe.config.answer import AnswerSettings, ExportSettings
from routing_moe.config.flags import flag_problems
from routing_moe.task_choice.given_routes import file_matrices


def check_flags(settings: AnswerSettings | ExportSettings) -> None:
    """Raises InputError for wrong values, and for flags that contradict each other."""
    problems = flag_problems(settings)
    if len(settings.ways) > 1:
        problems.append(f"{' and '.join(settings.ways)} each determine the route; give one of them")
    if set(settings.ways) & {"--taskvecs", "--task_routes"} and not settings.task:
        problems.append(f"{settings.ways[0]} needs --task, the task's name in it")
    if isinstance(settings, AnswerSettings):
        try:
            Query("text", settings.options).check()
        except ValueError as error:
            problems.append(f"--options: {error}")
    elif settings.adapters and (settings.task or settings.ways):
        problems.append("--adapters writes all experts; leave the flags of one route out")
    elif settings.argmax and settings.as_ == "adapter":
        problems.append("--argmax is for a plain model; --as adapter writes any route")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        problems.append("one process answers and exports: leave accelerate launch out")
    if problems:
        raise InputError(problems)


def chosen_task(routed, settings: AnswerSettings | ExportSettings):
    """Returns the `RoutedTask` of a `Routed` that the flags choose. Raises InputError."""
    config, name = routed.model.config, settings.name
    if name is None and config.num_experts > 1:
        raise InputError("--task is not given: name a task of the training, or give --like or --examples")
    if name is None:
        name = config.task_names[0] if len(config.task_names) == 1 else "task"
    if settings.like:
        with problem_context("--like "):
            inputs = [query.input for query in read_queries(settings.like)]
        return routed.task(name, inputs=inputs, gym=settings.train_dir)
    if settings.examples:
        with problem_context("--examples "):
            rows, _ = read_task_file(settings.examples)
        pairs = [(row[0], row[1][0]) for row in rows]
        return routed.task(name, examples=pairs, steps=settings.steps, rate=settings.rate, seed=settings.seed)
    if settings.task_routes:
        return routed.task(name, route=file_matrices(settings.task_routes, [name], config)[name])
    return routed.task(name, vectors=settings.taskvecs)
