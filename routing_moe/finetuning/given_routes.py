"""The task's route among given routes: of a file, of its nearest cluster, its own, or equal weights.

Without torch until a route is chosen, so that faults are reported quickly.
"""

import numpy as np

from dataloader.errors import Faults
from dataloader.gym import Gym
from routing_moe.checkpoints.find import SavedMixture
from routing_moe.config.finetune import FinetuneSettings
from routing_moe.finetuning.vectors import GivenVectors, own_vector, row_faults
from routing_moe.model.given_routes import GivenRoutes
from routing_moe.training.start_checks import other_width, parts_faults
from routing_moe.training.task_routes import routes_of_tasks


def follows_given_routes(settings: FinetuneSettings, config) -> bool:
    """Returns whether the route is that of `--task_routes`, or comes from a mixture with given routes."""
    if settings.route_source is None:
        return config.given_routes is not None
    return settings.selecting_flags == ["task_routes"]


def reads_clusters(settings: FinetuneSettings, config) -> bool:
    """Returns whether the route is that of the cluster nearest to a vector of `--taskvecs`."""
    return bool(settings.taskvecs and settings.route_source is None and config.route_parts)


def reads_row(settings: FinetuneSettings, config) -> bool:
    """Returns whether the route is found by a vector, of `--taskvecs` or of the mixture."""
    follows = follows_given_routes(settings, config) and not settings.task_routes
    return bool(follows and config.route_parts) and not lacks_route(settings, config)


def lacks_route(settings: FinetuneSettings, config) -> bool:
    """Returns whether nothing is known of the task's route, so that all experts have equal weights."""
    known = settings.task_routes or settings.taskvecs or settings.task in config.task_names
    return follows_given_routes(settings, config) and not known


def given_route_faults(settings: FinetuneSettings, start: SavedMixture, gyms: list[Gym]) -> list[str]:
    """Returns faults of `--task_routes` and of the vectors by which a cluster is found."""
    faults, config = Faults(), start.config
    if settings.selecting_flags == ["task_routes"] and (routes := faults.of(file_route, settings)):
        depths = config.encoder_layers, config.decoder_layers
        faults.of(routes.matrices, *depths, config.num_experts, flag="task_routes")
    if reads_clusters(settings, config) and (given := faults.of(GivenVectors.load, settings)):
        D, wanted = given.vectors_ND.shape[1], config.router_input_dim
        faults += row_faults(settings, given.names, gyms, f"--taskvecs {settings.taskvecs}")
        if wanted != D:
            faults.append(other_width(settings.taskvecs, D, start.checkpoint, wanted))
        else:
            faults += parts_faults(settings.taskvecs, start.checkpoint, config.route_parts)
    averages = lacks_route(settings, config) and config.expert_mixing == "outputs"
    if settings.route_training == "plain" and averages:
        faults.append(
            f"--route_training is plain, but {start.checkpoint} has no route for {settings.task}, and "
            "averaged outputs have no equivalent plain BART; give fixed, or a route by --task_routes or "
            "--taskvecs"
        )
    return list(faults)


def file_route(settings: FinetuneSettings) -> GivenRoutes:
    """Returns the task's route in the file `--task_routes`. Raises InputError."""
    return GivenRoutes(settings.task_routes, routes_of_tasks(settings.task_routes, [settings.task]))


def route_note(settings: FinetuneSettings, config) -> str | None:
    """Returns a note to log if nothing is known of the task's route, else None."""
    if not lacks_route(settings, config):
        return None
    give = "--task_routes" + (" or --taskvecs" if config.route_parts else "")
    return f"no route of {settings.task} is known: all experts have equal weights; {give} gives it one"


def choose_route(mixture, settings: FinetuneSettings, sample: str, given: GivenVectors | None):
    """Returns the `RouteChoice` of a sample of the task. given: the vectors of `--taskvecs`."""
    from routing_moe.evaluation.unseen_routes import RouteChoice, RouteClusters  # imports torch

    config, task = mixture.config, settings.task
    if settings.task_routes:
        depths = config.encoder_layers, config.decoder_layers
        route_LE: np.ndarray = file_route(settings).matrices(*depths, config.num_experts)[0]
        return RouteChoice(task, "given", route_LE, "given route")
    clusters = RouteClusters(mixture)
    if given:
        vector = own_vector(mixture, settings, sample, given)
        return clusters.nearest(task, vector.vector_D, vector.seen)
    return clusters.choose(task)
