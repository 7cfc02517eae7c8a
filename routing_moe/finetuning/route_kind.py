"""What the route of the fine-tuned task comes from. Imports no torch, which takes seconds."""

from dataloader.encoding import TextFormat
from dataloader.gym import Gym
from routing_moe.config.finetune import FinetuneSettings
from routing_moe.task_choice.choice import VectorTable
from routing_moe.task_choice.texts import TextSource


def route_kind(settings: FinetuneSettings, config) -> str:
    """Returns what the task's route comes from. config: that of a mixture with several experts.

    A vector that the router reads: "given vector" (of --taskvecs), "learned vector", "nearest vector" or
    "stored vector". A route: "given" (by --task_routes), "lowest loss" (on the sample's train rows),
    "cluster" (the nearest to a vector of --taskvecs), "own" (of the mixture), "unknown" (the mixture has none
    for the task: equal weights), "drawn" (at random for the task), "random" (for each example) or "average".
    """
    source = settings.route_source or config.route_source
    if source == "learned":
        if settings.taskvecs:
            return "given vector"
        if settings.task_vector == "learned":
            return "learned vector"
        needs = vector_table(settings.task, config).needing_nearest([settings.task], settings.task_vector)
        return "nearest vector" if needs else "stored vector"
    if source in ("average", "random"):
        return source
    if settings.task_routes:
        return "lowest loss" if settings.by_loss else "given"
    if settings.route_source or not config.given_routes:
        return "drawn"
    if settings.taskvecs and config.route_parts:
        return "cluster"
    return "own" if settings.task in config.task_names else "unknown"


def vector_table(task: str, config) -> VectorTable:
    """Returns the mixture's tasks. If its train tasks are unknown, all others than `task` may be copied."""
    neighbours = set(config.trained_tasks) or set(config.task_names) - {task}
    return VectorTable(config.task_names, config.random_vectors, neighbours)


def text_source(settings: FinetuneSettings) -> TextSource:
    """Returns the source of texts: --text_vectors, or the gyms of --train_dir and of the task."""
    folders = [settings.train_dir] if settings.train_dir else []
    gyms = [Gym(folder, settings.skip_malformed) for folder in (*folders, settings.gym_dir)]
    return TextSource(tuple(gyms), TextFormat.of(settings), settings.text_vectors, settings.examples_per_file)
