"""What the flags of the commands choose: the model, and the task with its route. Does not import torch."""

from pathlib import Path

from dataloader.errors import Faults, InputError
from dataloader.task_files import read_task_file
from routing_moe.answering.queries import STDIN, read_queries
from routing_moe.checkpoints.find import SavedBart, SavedMixture, find_mixture, find_saved
from routing_moe.config.answer import AnswerSettings, ExportSettings
from routing_moe.config.flags import value_faults
from routing_moe.model.given_routes import GivenRoutes
from routing_moe.task_choice.given_routes import routes_of_tasks


def check(settings: AnswerSettings | ExportSettings) -> None:
    """Raises InputError for wrong values, contradictions, missing files, and a model that is not there."""
    faults = Faults(value_faults(settings))
    if len(settings.ways) > 1:
        faults.append(f"{' and '.join(settings.ways)} each determine the route; give one of them")
    if set(settings.ways) & {"--taskvecs", "--task_routes"} and not settings.task:
        faults.append(f"{settings.ways[0]} needs --task, the task's name in it")
    faults.of(find_model, settings.checkpoint, settings.checkpoint_name, flag="checkpoint")
    output = getattr(settings, "output_dir", None)
    if output and output.exists():
        faults.append(f"--output_dir {output} exists already; name another folder")
    for name in ("like", "examples", "inputs"):
        path = getattr(settings, name)
        if path and path != STDIN and not Path(path).is_file():
            faults.append(f"--{name} {path}: no such file")
    if faults:
        raise InputError(faults)


def find_model(place: str, checkpoint_name: str | None) -> SavedMixture | SavedBart:
    """Returns the model in a run or checkpoint, a plain BART, or a hub name. Raises InputError."""
    if checkpoint_name:
        return find_mixture(place, checkpoint_name, "checkpoint_name")
    return find_saved(place, "checkpoint_name")


def chosen_task(routed, settings: AnswerSettings | ExportSettings):
    """Returns the `RoutedTask` of a `Routed` that the flags choose. Raises InputError."""
    config, name = routed.model.config, settings.name
    if name is None:
        if config.num_experts > 1:
            raise InputError("--task is not given: name a task of the training, or give --like or --examples")
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
        given = GivenRoutes(settings.task_routes, routes_of_tasks(settings.task_routes, [name]))
        route = given.matrices(config.encoder_layers, config.decoder_layers, config.num_experts)[0]
    return routed.task(name, vectors=settings.taskvecs, route=route)
