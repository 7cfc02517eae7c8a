"""Curves of a run: rows of `curves.csv`, and one of accelerate's trackers."""

import csv
from pathlib import Path

from accelerate import Accelerator

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, in_brief
from routing_moe.io.main_process import on_main
from routing_moe.io.run_folder import CURVES_FILE


def drop_rows_after(curves: Path, step: int) -> None:
    """Drops the rows of steps that a resumed run repeats."""
    text = curves.read_text(encoding="utf-8") if step and curves.is_file() else ""
    complete = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    try:
        kept = [row for row in complete[1:] if int(row.split(",")[0]) <= step]
        write_text(curves, "".join(complete[:1] + kept))
    except ValueError as error:
        advice = "delete it to resume without its rows"
        raise InputError(f"{curves}: cannot be continued ({in_brief(error)}); {advice}") from None


def log_curves(folder: Path, accelerator: Accelerator, values: dict[str, float], step: int) -> None:
    """Appends a row to the `curves.csv` of a run, and sends it to the other tracker, if any."""
    if accelerator.is_main_process:
        with (folder / CURVES_FILE).open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if file.tell() == 0:
                writer.writerow(["step", *values])
            writer.writerow([step, *values.values()])
    accelerator.log(values, step=step)


def start_trackers(settings, accelerator: Accelerator, first_step: int) -> None:
    """Prepares `curves.csv`, and starts the tracker of --log_with, which shows the name of the run."""
    # Only the main process reads the old curves; a damaged file must end all processes.
    on_main(accelerator, lambda: drop_rows_after(Path(settings.output_dir, CURVES_FILE), first_step))
    if settings.log_with == "csv":
        return
    accelerator.project_configuration.set_directories(settings.output_dir)
    accelerator.log_with = [settings.log_with]
    flat = {k: v for k, v in settings.to_dict().items() if isinstance(v, str | int | float | bool)}
    name = "-".join(Path(settings.output_dir).resolve().parts[1:][-2:])  # such as softmax-seed42
    names = {"clearml": "task_name", "dvclive": "exp_name", "mlflow": "run_name"}
    names |= {"swanlab": "experiment_name", "trackio": "name", "wandb": "name"}
    arguments = {tracker: {argument: name} for tracker, argument in names.items()}
    arguments["clearml"]["reuse_last_task_id"] = False  # else it replaces a task of that name
    if settings.log_with == "comet_ml":
        from comet_ml import ExperimentConfig

        arguments["comet_ml"] = {"experiment_config": ExperimentConfig(name=name)}
    project = name if settings.log_with == "aim" else "routing_moe"  # accelerate names a run of Aim by it
    accelerator.init_trackers(project, flat, arguments)
