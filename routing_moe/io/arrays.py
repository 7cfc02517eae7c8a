"""Reads NumPy files with errors that name the file."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from dataloader.errors import InputError, in_brief


def load_array(path: str | Path) -> np.ndarray:
    """Returns the array of real numbers in a .npy file. Raises InputError, FileNotFoundError."""
    array = load_npy(path, lambda file: file if isinstance(file, np.ndarray) else None)
    if array is None:
        raise InputError(f"{path} holds several arrays; it must hold one, as written by np.save")
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path} holds {array.dtype} of shape {array.shape}; it must hold real numbers")
    return array


def load_arrays(path: str | Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns the named arrays of a .npz file. Raises InputError, FileNotFoundError."""
    return load_npy(path, lambda file: {name: np.asarray(file[name]) for name in names})


def load_npy(path: str | Path, take: Callable):
    """Returns take(content of a NumPy file), which is never unpickled."""
    try:
        content = np.load(path, allow_pickle=False)
        with content if hasattr(content, "close") else nullcontext():
            return take(content)
    except FileNotFoundError:
        raise
    except Exception as error:  # broken headers and archives raise many types of errors
        raise InputError(f"{path}: not a NumPy array file ({in_brief(error)})") from None
