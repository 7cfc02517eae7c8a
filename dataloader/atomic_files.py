"""Atomic writes of files, and locks of folders.

A file is written under another name and renamed when it is complete, so a process that is killed at any
moment leaves the previous version. The content is on disk before the rename and the new name after it, so a
power failure has the same effect as a kill.
"""

import errno
import os
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dataloader.errors import InputError

LOCK_FILE = "lock"


def write_text(path: str | Path, text: str) -> None:
    """Writes a file atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Writes a file atomically."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
    except OSError:
        partial.unlink(missing_ok=True)  # partial files would keep a full disk full
        raise
    replace_file(partial, path)


def replace_file(partial: str | Path, path: str | Path) -> None:
    """Renames a finished file to `path` in the same folder. Content and name survive a power failure."""
    flush(partial)
    os.replace(partial, path)
    flush(Path(path).parent)


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
