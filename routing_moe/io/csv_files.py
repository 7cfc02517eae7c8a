"""Reads CSV files of results with errors that name the file."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from dataloader.errors import InputError, in_brief


def read_table(path: str | Path, **how) -> pd.DataFrame:
    """Returns `pandas.read_csv(path, **how)`. Raises InputError for a file that is missing or broken."""
    try:
        return pd.read_csv(path, **how)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # pandas raises many types of errors; the user needs the same message
        raise InputError(f"{path}: cannot be read ({in_brief(error)})") from None


def check_numbers(table: pd.DataFrame, columns: Iterable[str], path: str | Path) -> None:
    """Raises InputError for a column with a cell that is not a number or has too many digits."""
    for name in columns:
        if len(table) and table[name].dtype.kind not in "fiu":
            raise InputError(f"{path}: column {name} holds values that are not numbers")
