"""A folder with one file per finished piece of a job, written atomically, so that the job can continue.

The traceback of a failed piece is in <piece>.failed.txt until the piece is finished.
"""

import json
import logging
from collections.abc import Callable, Hashable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from dataloader.atomic_files import write_bytes, write_text
from dataloader.errors import InputError, in_brief, problem_context
from dataloader.jsonfile import load_json_object
from dataloader.progress import ProgressBar

JOB_FILE = "job.json"  # what the pieces are of
# What a change of a checksum in it means.
CHECKSUMS = {
    "checkpoint": "another checkpoint",
    "base": "another base",
    "adapters": "other adapters",
    "data": "other rows",
    "options": "other answer options",
    "routes": "other routes",
}

log = logging.getLogger("routing_moe")


@dataclass(frozen=True)
class JobFolder:
    """The pieces of a job in `folder`.

    read: returns a piece, given its file's path; KeyError, TypeError, ValueError and OverflowError mean that
    the file is damaged. redo: what a user deletes a damaged file for, such as "score these again".
    ending: of the files. name: returns the name of a piece's file without the ending.
    """

    folder: Path
    read: Callable[[Path], Any]
    redo: str
    ending: str = ".json"
    name: Callable[[Any], str] = str

    def path(self, piece: Hashable) -> Path:
        return self.folder / f"{self.name(piece)}{self.ending}"

    def failure(self, piece: Hashable) -> Path:
        return self.folder / f"{self.name(piece)}.failed.txt"

    def names(self) -> list[str]:
        """Returns the names of all finished pieces, sorted."""
        files = [path for path in self.folder.glob(f"*{self.ending}") if path.is_file()]
        return sorted(path.name.removesuffix(self.ending) for path in files)

    def finished(self, piece: Hashable) -> Any | None:
        """Returns the piece as `read` returns it, or None if it is missing. Raises InputError."""
        path, advice = self.path(piece), f"; delete it to {self.redo}"
        if not path.is_file():
            return None
        try:
            with problem_context("", advice):
                return self.read(path)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError):
            raise InputError(f"{path} is damaged{advice}") from None

    def write(self, piece: Hashable, content: bytes) -> None:
        """Writes the file of a piece, which is then finished."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self.path(piece), content)
        self.failure(piece).unlink(missing_ok=True)

    def collect(self, outcomes: Iterator, keep: Callable, bar: ProgressBar) -> dict[str, Exception]:
        """Calls `keep(piece, result)` for each result; returns {message: error} of the pieces that failed.

        outcomes: a generator of (piece, result or exception), which is closed at the end. Raises the
        InputError of a piece.
        """
        failed = {}
        with bar, closing(outcomes):
            for piece, outcome in outcomes:
                bar.update()
                if isinstance(outcome, InputError):  # of the command's input, so all other pieces fail, too
                    raise outcome
                if not isinstance(outcome, Exception):
                    keep(piece, outcome)
                    continue
                line = f"{piece}: {type(outcome).__name__}: {in_brief(outcome)}"
                if notes := getattr(outcome, "__notes__", None):  # its traceback, unless the process died
                    self.folder.mkdir(parents=True, exist_ok=True)
                    write_text(self.failure(piece), "\n".join(notes))
                    line += f" ({self.failure(piece)})"
                failed[line] = outcome
                log.error("failed: %s", line)
        return failed


def keep_same_job(folder: Path, described: dict, pieces: JobFolder) -> None:
    """Writes what the pieces depend on. Raises InputError if there are pieces of another job."""
    path = folder / JOB_FILE
    if pieces.names():
        saved = load_json_object(path, "what the files in the folder are of")
        for name in saved | described:
            values = saved.get(name), described.get(name)
            if values[0] != values[1]:
                was, now = (shorten(json.dumps(value), 80) for value in values)
                what = f"of {CHECKSUMS[name]}" if name in CHECKSUMS else f"with {name} {was}, not {now}"
                raise InputError(
                    f"--output_dir {folder} holds results {what}; name another folder, or delete that one"
                )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(described, indent=1))
