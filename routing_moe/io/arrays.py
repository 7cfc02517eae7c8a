"""Reads NumPy files with errors that name the file."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dataloader.errors import InputError, in_brief


def load_array(path: str | Path) -> np.ndarray:
    """Returns the array of real numbers in a .npy file.

    Raises FileNotFoundError, or InputError for any other problem. Never unpickles.
    """
    array = _load(path, lambda found: found if isinstance(found, np.ndarray) else None)
    if array is None:
        raise InputError(f"{path} holds several arrays; it must hold one, as written by np.save")
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path} holds {array.dtype} of shape {array.shape}; it must hold real numbers")
    return array


def load_arrays(path: str | Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns the named arrays of a .npz file.

    Raises FileNotFoundError, or InputError for any other problem. Never unpickles.
    """

    def take(found) -> dict[str, np.ndarray]:
        arrays = {name: found[name] for name in names}
        if any(not isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("a member is not an array")
        return arrays

    return _load(path, take)


def _load(path: str | Path, take):
    try:
        found = np.load(path, allow_pickle=False)
        try:
            return take(found)
        finally:
            if hasattr(found, "close"):
                found.close()
    except FileNotFoundError:
        raise
    except Exception as error:  # broken headers and archives raise many types of errors
        raise InputError(f"{path}: not a NumPy array file ({in_brief(error)})") from None
