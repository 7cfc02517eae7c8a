"""The task with its route that the flags of `answer` and `export` choose. Does not import torch."""

import os
from collections.abc import Iterator

from dataloader.building.tables import FORMATS, Kept
from dataloader.errors import InputError, problem_context
from dataloader.task_files import read_task_file, whole_text
from routing_moe.answering.queries import Query, read_queries
from routing_moe.answering.tables import WITH_COLUMNS, is_table, table_of, table_queries
from routing_moe.checkpoints.find import find_model, saved_fields
from routing_moe.config.answer import AnswerSettings, ExportSettings
from routing_moe.io.hub import local_folder
from routing_moe.task_choice.given_routes import file_matrices


def check_flags(settings: AnswerSettings | ExportSettings) -> None:
    """Raises InputError for wrong values, and for flags that contradict each other."""
    texts = {name: value for name, value in vars(settings).items() if name != "system"}
    empty = [name for name, value in texts.items() if isinstance(value, str) and not value.strip()]
    problems = [f"--{name} is empty; give a value, or leave it out" for name in empty]
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
    elif settings.argmax and (settings.adapters or settings.as_ != "plain"):
        problems.append("--argmax is for a plain model; adapters can be of any route")
    elif settings.rank and settings.as_ == "plain" and not settings.adapters:
        problems.append("--rank is for adapters: give --as adapter, --as gguf or --adapters, or leave it out")
    files = filter(None, (getattr(settings, "inputs", None), settings.like))
    if settings.input is not None and not any(map(is_table, files)):
        problems.append(f"--input {settings.input!r} is for a table ({', '.join(FORMATS)}) of texts")
    if settings.examples and is_table(settings.examples, WITH_COLUMNS):
        problems.append(f"--examples {settings.examples}: expected a train file of a gym; add-task makes it")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        problems.append("one process answers and exports: leave accelerate launch out")
    if problems:
        raise InputError(problems)


def texts_of(settings: AnswerSettings | ExportSettings, flag: str) -> tuple[Kept | None, Iterator[Query]]:
    """Returns the template of the texts of --inputs or --like, None without one, and the texts."""
    file, options = getattr(settings, flag), getattr(settings, "options", ()) if flag == "inputs" else ()
    if found := table_of(flag, file, settings.input, kept_template(settings)):
        return found[1].kept, table_queries(*found, options)
    return None, read_queries(file, options)


def kept_template(settings: AnswerSettings | ExportSettings) -> Kept | None:
    """Returns the template of `add-task` that the checkpoint has for the task."""
    saved = saved_fields(local_folder(find_model(settings.checkpoint, settings.checkpoint_name).place))
    names = saved.get("task_names") or []
    name = names[0] if settings.name is None and len(names) == 1 else settings.name
    return (saved.get("input_templates") or {}).get(name)


def chosen_task(routed, settings: AnswerSettings | ExportSettings):
    """Returns the `RoutedTask` of a `Routed` that the flags choose. Raises InputError."""
    config, name = routed.model.config, settings.name
    if name is None and config.num_experts > 1:
        raise InputError("--task is not given: name a task of the training, or give --like or --examples")
    if name is None:
        name = config.task_names[0] if len(config.task_names) == 1 else "task"
    if settings.like:
        queries = texts_of(settings, "like")[1]
        with problem_context("--like "):
            inputs = [whole_text(query.input, query.before) for query in queries]
        return routed.task(name, inputs=inputs, gym=settings.train_dir)
    if settings.examples:
        with problem_context("--examples "):
            rows, _ = read_task_file(settings.examples)
        pairs = [(row[0], row[1][0], *row[3:]) for row in rows]
        return routed.task(name, examples=pairs, steps=settings.steps, rate=settings.rate, seed=settings.seed)
    if settings.task_routes:
        return routed.task(name, route=file_matrices(settings.task_routes, [name], config)[name])
    return routed.task(name, vectors=settings.taskvecs)
