"""Atomic writes of files, folders for unfinished output, and locks of folders.

A file is written under a random name and renamed when it is complete and on disk, so a kill or a power
failure leaves the previous version. What a kill leaves is known by its name and by a lock that no living
process holds.
"""

import errno
import fcntl
import glob
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from dataloader.errors import InputError

LOCK_FILE = "lock"
PARTIAL = "." + "[0-9a-f]" * 16 + ".partial"  # pattern of the names of unfinished files
PREVIOUS = "previous"  # in the unfinished folder: what `replacing_directory` replaces
UNFINISHED_LOCK = "unfinished.lock"  # in a folder of `unfinished_folder`; locked while its process lives


def write_text(path: str | Path, text: str) -> None:
    """Writes a file atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Writes a file atomically."""
    partial = Path(path).with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with partial.open("xb") as file:
            lock_file(file)
            file.write(content)
            file.flush()
            flush(partial)
            os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)  # partial files would keep a full disk full
        raise
    flush(partial.parent)


def remove_partial_files(folder: str | Path) -> None:
    """Removes the files below a folder that killed processes were writing."""
    for partial in Path(folder).rglob(PARTIAL):
        with suppress(OSError), partial.open("rb") as file:
            lock_file(file)
            partial.unlink()


def lock_file(file) -> None:
    """Locks an open file until it is closed. Raises BlockingIOError if another process has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):  # of some network file systems
            raise


@contextmanager
def unfinished_folder(path: str | Path) -> Iterator[Path]:
    """Yields a new folder beside `path`, for output that is renamed to `path` when it is complete.

    It has a random name and is removed at the end, unless it holds a PREVIOUS folder.
    """
    folder, lock = _locked_folder(_named(path))
    try:
        yield folder
    finally:
        _remove(folder)
        lock.release()


def final_path(path: str | Path) -> str:
    """Returns where a file or folder in (nested) `unfinished_folder`s will be; links are followed."""
    path, found = os.path.realpath(path), 1
    while found:  # the innermost one first
        path, found = re.subn(r"^(.*/)\.([^/]+)\.\w{8}\.partial/[^/]+", r"\1\2", path)
    return path


def _locked_folder(path: Path) -> tuple[Path, FileLock]:
    while True:
        folder = Path(tempfile.mkdtemp(".partial", f".{path.name}.", path.parent))
        lock = FileLock(folder / UNFINISHED_LOCK)
        with suppress(FileNotFoundError):
            lock.acquire()
            if (folder / UNFINISHED_LOCK).exists():
                return folder, lock
            lock.release()  # another process took the folder for one that a kill had left


def unfinished_folders(path: str | Path) -> list[Path]:
    """Returns the folders that `unfinished_folder(path)` made and that still exist."""
    return [folder for folder in _so_named(path) if (folder / UNFINISHED_LOCK).is_file()]


def remove_unfinished(path: str | Path) -> None:
    """Removes the folders that killed processes have left for `path`, unless they hold a PREVIOUS folder."""
    for folder in _so_named(path):
        with suppress(Timeout, OSError):
            if not (folder / UNFINISHED_LOCK).is_file():
                folder.rmdir()  # an empty one, of a kill at its beginning or end
                continue
            with FileLock(folder / UNFINISHED_LOCK, timeout=0):
                _remove(folder)


def _so_named(path: str | Path) -> list[Path]:
    path = _named(path)
    return list(path.parent.glob(f".{glob.escape(path.name)}.????????.partial"))


def _remove(folder: Path) -> None:
    if (folder / PREVIOUS).exists():
        return
    for entry in folder.glob("*"):
        shutil.rmtree(entry, ignore_errors=True)  # but the lock, a file, marks the folder to the end
    shutil.rmtree(folder, ignore_errors=True)


def _named(path: str | Path) -> Path:
    """Returns the path with a name, which "." and ".." lack."""
    path = Path(path)
    return path.resolve() if path.name in ("", "..") else path


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

    named: the flag or name of the folder in errors. lock_file: its name in the folder. With LOCK_FILE, the
    folder is the command's own, and partial files that killed commands have left in it are removed. Raises
    InputError if another command holds the lock.
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
        if lock_file == LOCK_FILE:
            remove_partial_files(folder)
        yield
    finally:
        lock.release()
