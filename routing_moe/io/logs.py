"""Logging of a run: messages to the terminal and, with details (debug messages), to a file."""

import logging
import sys
from pathlib import Path

from dataloader.progress import ProgressBar

log = logging.getLogger("routing_moe")
early_notes: list[str] = []  # from before the log begins


class AboveProgressBars(logging.StreamHandler):
    """Writes messages to standard error without breaking progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        ProgressBar.write(self.format(record), file=sys.stderr)


def start_logging(is_main_process: bool = True) -> None:
    """Logs messages of the main process to the terminal.

    Switches off the bars of transformers, but not those of downloads from the hub.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging as library_logging  # takes a second

    library_logging.set_verbosity_error()
    shows_downloads = not are_progress_bars_disabled()
    library_logging.disable_progress_bar()  # also of the hub
    if shows_downloads:
        enable_progress_bars()
    log.setLevel(logging.DEBUG if is_main_process else logging.ERROR)
    log.propagate = False
    for handler in log.handlers[:]:
        handler.close()
        log.removeHandler(handler)
    _add_handler(AboveProgressBars(), logging.INFO)
    for note in early_notes:
        log.info(note)


def log_to_file(folder: str | Path, name: str, is_main_process: bool = True) -> None:
    """Logs messages and details to a file of the run folder, which is created if necessary; at most one file.

    Its first lines are the commits of models that were found on the hub or in its cache, and early notes.
    """
    from routing_moe.io.hub import commits  # takes a third of a second

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    has_file = any(isinstance(handler, logging.FileHandler) for handler in log.handlers)
    if is_main_process and not has_file:
        _add_handler(logging.FileHandler(folder / name, encoding="utf-8"))
        for name, commit in commits().items():
            log.debug("model: %s, commit %s", name, commit)
        for note in early_notes:  # which the terminal has
            log.debug(note)
        early_notes.clear()


def _add_handler(handler: logging.Handler, level: int = logging.DEBUG) -> None:
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
