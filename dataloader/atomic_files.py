"""Atomic writes of files, folders for unfinished output, and locks of folders.

A file is written in another folder and renamed when it is complete, so a process that is killed at any
moment leaves the previous version. The content is on disk before the rename and the new name after it, so a
power failure has the same effect as a kill.
"""

import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from dataloader.errors import InputError

LOCK_FILE = "lock"
UNFINISHED_LOCK = "unfinished.lock"  # marks a folder of `unfinished_folder`; locked while its process lives


def write_text(path: str | Path, text: str) -> None:
    """Writes a file atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Writes a file atomically."""
    with unfinished_folder(path) as folder:
        (folder / "new").write_bytes(content)
        flush(folder / "new")
        os.replace(folder / "new", path)
    flush(Path(path).parent)


@contextmanager
def unfinished_folder(path: str | Path) -> Iterator[Path]:
    """Yields a new folder beside `path`, for output that is renamed to `path` when it is complete.

    It has a random name and is removed at the end, as are those that killed processes have left for `path`.
    """
    path = Path(os.path.abspath(path))
    for left in unfinished_folders(path):
        with suppress(Timeout, OSError), FileLock(left / UNFINISHED_LOCK, timeout=0):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(".partial", f".{path.name}.", path.parent))
    try:
        with FileLock(folder / "lock"):
            os.rename(folder / "lock", folder / UNFINISHED_LOCK)  # which others see only once it is locked
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def unfinished_folders(path: str | Path) -> list[Path]:
    """Returns the folders that `unfinished_folder(path)` made and that still exist."""
    path = Path(os.path.abspath(path))
    found = path.parent.glob(f".{glob.escape(path.name)}.*.partial")
    return [folder for folder in found if (folder / UNFINISHED_LOCK).is_file()]


def flush(path: str | Path) -> None:
    """Writes a file's content, or the names in a folder, from the system's buffers to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot do this for folders
            raise
    finally:
        os.close(descriptor)


@contextmanager
def folder_lock(folder: str | Path, named: str = "--output_dir", lock_file: str = LOCK_FILE):
    """Locks a folder against other commands in the block; creates the folder.

    The system releases the lock when the process ends; the lock file stays. named: the flag or name of the
    folder in errors. lock_file: its name in the folder. Raises InputError if another command holds the lock.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / lock_file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{named} {folder}: another command is using it; wait until it ends, or end it"
        ) from None
    try:
        yield
    finally:
        lock.release()
