"""The flags of `routing-moe transfer`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from routing_moe.config.choices import PRECISIONS
from routing_moe.config.flags import AT_LEAST_1, REQUIRED, SEED, Range, group
from routing_moe.config.plugins import PluginFlags
from routing_moe.config.train import TrainSettings, train_settings
from routing_moe.io.run_folder import settings_of_run

WHAT = group("what is compared")
GROUPS = group("groups")
RUNNING = group("running")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class TransferSettings(PluginFlags):
    """prediction: the settings of `train --do_predict` by which the run's checkpoint and data are found."""

    program = "routing-moe transfer"
    usage = "RUN [flags, see --help]"

    run: Path = WHAT(REQUIRED, "folder of a run with an expert for each task (train --task_routes tasks)", positional=True, metavar="RUN")
    train_dir: str | None = WHAT(None, "gym folder (default: that of the run)")
    checkpoint_name: str = WHAT("best", "which checkpoint of the run")
    rows: int = WHAT(16, "most rows of each task, evenly spaced: all are read once along each expert", range=AT_LEAST_1)
    columns: int = WHAT(256, "most experts that are compared; of more tasks, so many are drawn, and the others join the group whose experts they gain most from. A sample needs about three tasks of each group", range=AT_LEAST_1)
    seed: int = WHAT(42, "seed of the sample", range=SEED)

    advantage: float = GROUPS(0.0, "one group unless the mean of the experts of a task's mates, on average over its rows, loses so much less than the mean of all experts, in nats per row", range=Range(lambda value: value == value, "a number"), metavar="NATS")

    output_dir: Path | None = RUNNING(None, "folder of tables, groups and picture (default: RUN/transfer)")
    mixed_precision: str | None = RUNNING(None, "precision of matrix products (default: that of the run)", choices=PRECISIONS)

    prediction: TrainSettings | None = None
# fmt: on


def transfer_settings(given: Mapping) -> TransferSettings:
    """Returns the settings of the given flags. Raises InputError if the run is missing or cannot be read."""
    settings = TransferSettings(**given)
    saved = settings_of_run(settings.run)
    shared = {
        "do_predict": True,
        "output_dir": str(settings.run),
        "checkpoint_name": settings.checkpoint_name,
        "predict_split": "train",
        "mixed_precision": settings.mixed_precision or saved.get("mixed_precision"),
        "debug": saved.get("debug", False),  # the same rows as in training
    }
    given = {name: given[name] for name in ("train_dir", "plugin") if name in given}
    folder = settings.output_dir or settings.run / "transfer"
    return replace(settings, prediction=train_settings(shared | given), output_dir=folder)
