"""Curves of a run: rows of `curves.csv`, and one of accelerate's trackers."""

import csv
from pathlib import Path

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, on_main_process

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, in_brief
from routing_moe.io.main_process import on_main
from routing_moe.io.run_folder import CURVES_FILE


class CsvTracker(GeneralTracker):
    """Appends one row per logged step to `curves.csv`.

    A resumed run first drops the rows of repeated steps.
    """

    name = "csv"
    requires_logging_directory = True

    def __init__(self, run_dir: str | Path, first_step: int = 0):
        super().__init__()
        self.path, self.first_step = Path(run_dir) / CURVES_FILE, first_step

    @property
    def tracker(self) -> Path:
        return self.path

    def store_init_configuration(self, values: dict) -> None:
        """Does nothing, because run.json has the settings."""

    def drop_repeated_rows(self) -> None:
        """Drops the rows after `first_step`. Raises InputError if the file cannot be read."""
        kept: list[str] = []
        if self.first_step and self.path.is_file():
            kept = self._rows_before()
        write_text(self.path, "".join(kept))

    def _rows_before(self) -> list[str]:
        """Returns the lines of the header and of the rows up to the first step."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            # A line without line break was incomplete when the process died.
            lines = [line for line in lines if line.endswith("\n")]
            return lines[:1] + [row for row in lines[1:] if int(row.split(",")[0]) <= self.first_step]
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.path}: cannot be continued ({in_brief(error)}); delete it to resume without its rows"
            ) from None

    @on_main_process
    def log(self, values: dict, step: int | None = None, **kwargs) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if file.tell() == 0:
                writer.writerow(["step", *values])
            writer.writerow([step, *values.values()])


def start_trackers(settings, accelerator: Accelerator, first_step: int) -> None:
    """Starts the tracker of `curves.csv` and that of --log_with, which shows the name of the run."""
    curves = CsvTracker(settings.output_dir, first_step)
    accelerator.project_configuration.set_directories(settings.output_dir)
    accelerator.log_with = [curves] if settings.log_with == "csv" else [curves, settings.log_with]
    flat = {k: v for k, v in settings.to_dict().items() if isinstance(v, str | int | float | bool)}
    # Only the main process reads the old curves; a damaged file must end all processes.
    on_main(accelerator, curves.drop_repeated_rows)
    name = "-".join(Path(settings.output_dir).resolve().parts[1:][-2:])  # such as softmax-seed42
    arguments = {
        "clearml": {"task_name": name, "reuse_last_task_id": False},  # else it replaces a task of that name
        "dvclive": {"exp_name": name},
        "mlflow": {"run_name": name},
        "swanlab": {"experiment_name": name},
        "trackio": {"name": name},
        "wandb": {"name": name},
    }
    if settings.log_with == "comet_ml":
        from comet_ml import ExperimentConfig

        arguments["comet_ml"] = {"experiment_config": ExperimentConfig(name=name)}
    project = name if settings.log_with == "aim" else "routing_moe"  # accelerate names a run of Aim by it
    accelerator.init_trackers(project, flat, arguments)
