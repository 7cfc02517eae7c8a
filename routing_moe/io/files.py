"""Run folders: atomic files and checkpoints, the training state, what is needed to resume.

    run.json  cost.json  log.txt  losses.csv  curves.csv  best/  last/  <step>-steps/

A checkpoint is written beside its place and renamed, so that a process killed at any moment leaves the last
good one. Files named *.partial and *.previous are traces of such a kill; `find_checkpoint` knows them. The
content is on the disk before a rename, the new name after it: a power failure does no more harm than a kill.
"""

import errno
import io
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from dataloader.errors import InputError, in_brief

LOCK_FILE = "lock"


def write_text(path: str | Path, text: str) -> None:
    """Write a file at once or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Write a file at once or not at all."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
    except OSError:
        partial.unlink(missing_ok=True)  # a full disk must not stay full of halves
        raise
    replace_file(partial, path)


def replace_file(partial: str | Path, path: str | Path) -> None:
    """Rename a finished file to `path`, in the same folder. Content and name survive a power failure."""
    flush(partial)
    os.replace(partial, path)
    flush(Path(path).parent)


def flush(path: str | Path) -> None:
    """Write a file's content, or the names in a folder, from the system's buffers to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot do this for folders
            raise
    finally:
        os.close(descriptor)


def flush_tree(folder: str | Path) -> None:
    """`flush` every file under a folder, and every folder after what is in it."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            flush(Path(place) / name)
        flush(place)


def npz_bytes(**arrays) -> bytes:
    """What `np.savez` would write."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy_bytes(array: np.ndarray) -> bytes:
    """What `np.save` would write."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@contextmanager
def replacing_directory(path: str | Path):
    """Yield an empty folder that takes the place of `path` when the block ends without an error.

    The block only writes: what torch and tokenizers raise there for a full disk comes out as an OSError.
    """
    path = Path(path)
    partial, previous = (path.with_name(path.name + end) for end in (".partial", ".previous"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk must not stay full of halves
        if type(error) in (Exception, RuntimeError):
            raise OSError(f"{path} cannot be written; is the disk full? ({in_brief(error)})") from None
        raise
    flush_tree(partial)
    while True:
        if path.exists():
            shutil.rmtree(previous, ignore_errors=True)
            os.rename(path, previous)
        try:
            os.rename(partial, path)
            break
        except OSError as error:
            # A reader found nothing there between the two renames, and put the previous one back.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    flush(path.parent)
    shutil.rmtree(previous, ignore_errors=True)


# ---- one command at a time


@contextmanager
def alone_in(folder: str | Path, named: str = "--output_dir"):
    """Lock a folder against other commands while the block runs; creates the folder.

    The system releases the lock when the process ends; the lock file stays. named: the folder's name in
    errors. Raises InputError if another command holds the lock.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{named} {folder}: another command is at work there; wait for it or end it"
        ) from None
    try:
        yield
    finally:
        lock.release()


# ---- looking for what is there


def unwritable(folder: str | Path) -> str | None:
    """Why no files can be written into a folder, which need not exist yet; None if they can."""
    folder = Path(folder)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        return f"{folder}: {there} is a file; name a folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{folder}: {there} cannot be written to"
    return None


def distinct_tails(paths: Sequence[Path]) -> list[str]:
    """The last parts of different absolute paths, with as much before them as tells them apart."""
    depths = [1] * len(paths)
    while True:
        tails = [str(Path(*path.parts[-depth:])) for path, depth in zip(paths, depths, strict=True)]
        seen = Counter(tails)
        if len(seen) == len(tails):
            return tails
        depths = [depth + (seen[tail] > 1) for depth, tail in zip(depths, tails, strict=True)]
