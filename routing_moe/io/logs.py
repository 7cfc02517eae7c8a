"""Logging of a run: curves through accelerate's trackers, messages to the terminal and a file."""

import contextlib
import csv
import logging
import resource
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, filter_trackers, on_main_process
from tqdm import tqdm
from transformers.utils import logging as library_logging

from dataloader.errors import InputError, in_brief
from routing_moe.config.settings import Settings
from routing_moe.io.files import write_text
from routing_moe.io.main_process import on_main

CURVES_FILE = "curves.csv"

log = logging.getLogger("routing_moe")


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


def start_trackers(settings: Settings, accelerator: Accelerator, first_step: int) -> None:
    """Starts the tracker of `curves.csv` and the one that --log_with names."""
    trackers = [CsvTracker(settings.output_dir, first_step)]
    if settings.log_with != "csv":
        trackers.append(settings.log_with)
    accelerator.project_configuration.set_directories(settings.output_dir)
    accelerator.log_with = filter_trackers(trackers, settings.output_dir)
    flat = {k: v for k, v in settings.to_dict().items() if isinstance(v, str | int | float | bool)}
    # Only the main process reads the old curves; a damaged file must end all processes.
    on_main(accelerator, trackers[0].drop_repeated_rows)
    accelerator.init_trackers("routing_moe", config=flat)


# ---- messages


class LogFile(logging.FileHandler):
    """A log file that ignores write errors such as a full disk; the terminal shows the messages, too."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass  # logging would print a traceback

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


class AboveProgressBars(logging.StreamHandler):
    """Writes messages to standard error without breaking progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def start_logging(is_main_process: bool = True) -> None:
    """Logs messages of the main process to the terminal."""
    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    log.setLevel(logging.INFO if is_main_process else logging.ERROR)
    log.propagate = False
    for handler in log.handlers[:]:
        handler.close()
        log.removeHandler(handler)
    _add_handler(AboveProgressBars())


def log_to_file(folder: str | Path, name: str, is_main_process: bool = True) -> None:
    """Logs messages also to a file of the run folder, which is created if necessary; at most one file."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    has_file = any(isinstance(handler, logging.FileHandler) for handler in log.handlers)
    if is_main_process and not has_file:
        _add_handler(LogFile(folder / name, encoding="utf-8"))


def _add_handler(handler: logging.Handler) -> None:
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)


# ---- memory


def peak_memory_gb() -> float:
    """Returns peak memory in GB: of the GPU if one was used, else the process's resident set."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
