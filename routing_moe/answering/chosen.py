"""What the flags of `answer` and `export` choose: the task with its route, and the file that is written.

Here are the contradictions of flags; files are checked by their readers. Does not import torch.
"""

from pathlib import Path

from dataloader.errors import InputError, problem_context
from dataloader.task_files import read_task_file
from routing_moe.answering.queries import STDOUT, Query, query_problem, read_queries
from routing_moe.config.answer import AnswerSettings, ExportSettings
from routing_moe.config.flags import flag_problems
from routing_moe.io.files import unwritable
from routing_moe.task_choice.given_routes import file_matrices


def check_flags(settings: AnswerSettings | ExportSettings) -> None:
    """Raises InputError for wrong values, and for flags that contradict each other."""
    problems = flag_problems(settings)
    if len(settings.ways) > 1:
        problems.append(f"{' and '.join(settings.ways)} each determine the route; give one of them")
    if set(settings.ways) & {"--taskvecs", "--task_routes"} and not settings.task:
        problems.append(f"{settings.ways[0]} needs --task, the task's name in it")
    if isinstance(settings, ExportSettings) and settings.adapters and (settings.task or settings.ways):
        problems.append("--adapters writes all experts; leave the flags of one route out")
    if isinstance(settings, ExportSettings) and settings.argmax and settings.as_ == "adapter":
        problems.append("--argmax is for a plain BART; --as adapter writes any route")
    if problems:
        raise InputError(problems)


def check_answers_file(settings: AnswerSettings) -> None:
    """Raises InputError for wrong options, and for an --output_file that would be overwritten or lost."""
    if problem := query_problem(Query("text", settings.options)):
        raise InputError(f"--options: {problem}")
    path = Path(settings.output_file)
    if settings.output_file == STDOUT:
        return
    for name in ("inputs", "like", "examples"):
        if getattr(settings, name) and Path(getattr(settings, name)).resolve() == path.resolve():
            raise InputError(f"--output_file {path} is --{name}; name another file")
    if path.exists():
        if not meta_file(path).exists():
            lacking = f"exists already, without {meta_file(path).name}; name another file"
            raise InputError(f"--output_file {path} {lacking}")
    elif not path.parent.is_dir():
        raise InputError(f"--output_file {path}: no such folder {path.parent}")
    elif reason := unwritable(path.parent):
        raise InputError(f"--output_file {reason}")


def meta_file(path: Path) -> Path:
    """Returns the file beside a file of answers that says what they depend on."""
    return path.with_name(f"{path.stem}.meta.json")


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
