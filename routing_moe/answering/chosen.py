"""The task that the flags of a command choose, with its route."""

from dataloader.errors import Faults, InputError
from dataloader.task_files import read_task_file
from routing_moe.answering.answers_file import read_queries
from routing_moe.answering.queries import RoutedTask
from routing_moe.answering.routed import Routed
from routing_moe.config.answer import AnswerSettings, ExportSettings, TaskFlags
from routing_moe.config.flags import value_faults
from routing_moe.model.given_routes import GivenRoutes
from routing_moe.task_choice.given_routes import routes_of_tasks


def checked(settings: TaskFlags) -> None:
    """Raises InputError for wrong values and flags that contradict each other."""
    faults = Faults(value_faults(settings))
    if len(settings.ways) > 1:
        faults.append(f"{' and '.join(settings.ways)} each determine the route; give one of them")
    if set(settings.ways) & {"--taskvecs", "--task_routes"} and not settings.task:
        faults.append(f"{settings.ways[0]} needs --task, the task's name in it")
    if faults:
        raise InputError(faults)


def load(settings: TaskFlags, **texts) -> Routed:
    """Returns the model of --checkpoint. texts: as for `Routed.load`."""
    return Routed.load(settings.checkpoint, settings.checkpoint_name, settings.mixed_precision, **texts)


def chosen_task(routed: Routed, settings: AnswerSettings | ExportSettings) -> RoutedTask:
    """Returns the task with the route that the flags choose. Raises InputError."""
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
