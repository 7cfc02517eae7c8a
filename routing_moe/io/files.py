"""Atomic replacement of folders, arrays as bytes, and checks of folders.

A folder is written beside its place and renamed when it is complete. The previous one is kept until then:
`restore_previous` puts it back if a kill came between.
"""

import contextlib
import errno
import io
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dataloader.atomic_files import PREVIOUS, flush, remove_unfinished, unfinished_folder, unfinished_folders
from dataloader.errors import InputError, in_brief


def flush_tree(folder: str | Path) -> None:
    """Applies `flush` to every file under a folder, and to every folder after its content."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            flush(Path(place) / name)
        flush(place)


def npz_bytes(**arrays) -> bytes:
    """Returns the bytes that `np.savez` would write."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy_bytes(array: np.ndarray) -> bytes:
    """Returns the bytes that `np.save` would write."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@contextmanager
def replacing_directory(path: str | Path):
    """Yields an empty folder that replaces `path` when the block ends without an error.

    The block must only write: errors that torch and tokenizers raise there for a full disk become OSError.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    restore_previous(path)
    remove_unfinished(path)
    with unfinished_folder(path) as unfinished:
        new = unfinished / "new"
        new.mkdir()
        try:
            yield new
        except Exception as error:
            if type(error) not in (Exception, RuntimeError):
                raise
            raise OSError(f"{path} cannot be written; is the disk full? ({in_brief(error)})") from None
        flush_tree(new)
        try:
            _replace(path, new, unfinished / PREVIOUS)
        finally:
            restore_previous(path)
        flush(path.parent)
        for folder in unfinished_folders(path):  # also of processes that were killed here
            shutil.rmtree(folder / PREVIOUS, ignore_errors=True)


def _replace(path: Path, new: Path, previous: Path) -> None:
    """Renames `new` to `path`, and what was there to `previous`."""
    while True:
        if path.exists():
            os.rename(path, previous)
        try:
            return os.rename(new, path)
        except OSError as error:
            # Between the two renames, a reader found no folder and restored the previous one.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or previous.exists():
                raise


def restore_previous(path: str | Path) -> None:
    """Puts back the previous folder if the process that replaced it ended between its two renames."""
    path = Path(path)
    if not path.exists():
        for unfinished in unfinished_folders(path):
            with contextlib.suppress(OSError):  # there is none, or another process was faster
                os.rename(unfinished / PREVIOUS, path)


def folder_problem(path: str | Path) -> str | None:
    """Returns the problem of a path that is not a folder, else None."""
    path = Path(path)
    if path.is_dir():
        return None
    return f"{path} is not a folder" if path.exists() else f"{path}: no such folder"


def unwritable(folder: str | Path) -> str | None:
    """Returns why files cannot be written into a folder, which may not exist yet; None if they can."""
    folder = Path(folder)
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not there.exists():
        return f"{folder}: {there} is a dangling link; remove it, or create its target"
    if not there.is_dir():
        return f"{folder}: {there} is a file; name a folder"
    is_writable = os.access(there, os.W_OK | os.X_OK)
    return None if is_writable else f"{folder}: {there} cannot be written to"


def new_folder_problems(flag: str, folder: Path) -> list[str]:
    """Returns the problem of a flag's output folder, which must not exist yet, or [] if it can be made."""
    if folder.exists():
        return [f"--{flag} {folder} exists already; name a new folder"]
    reason = unwritable(folder)
    return [f"--{flag} {reason}"] if reason else []


def distinct_paths(places: Iterable[str | Path]) -> list[Path]:
    """Returns the absolute paths. Raises InputError if one is given twice."""
    paths = [Path(os.path.abspath(place)) for place in places]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise InputError(f"{twice[0]} is given twice")
    return paths


def distinct_tails(paths: Sequence[Path]) -> list[str]:
    """Returns the shortest different tails of absolute paths: the last part of each, or more if necessary."""
    depths = [1] * len(paths)
    while True:
        tails = [str(Path(*path.parts[-depth:])) for path, depth in zip(paths, depths, strict=True)]
        seen = Counter(tails)
        if len(seen) == len(tails):
            return tails
        depths = [depth + (seen[tail] > 1) for depth, tail in zip(depths, tails, strict=True)]
