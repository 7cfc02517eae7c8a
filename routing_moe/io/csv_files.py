"""Reads CSV files of results with errors that name the file."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from dataloader.errors import InputError, in_brief


def read_table(path: str | Path, **options) -> pd.DataFrame:
    """Returns `pandas.read_csv(path, **options)`. Raises InputError for a file that is missing or broken."""
    try:
        table = pd.read_csv(path, encoding="utf-8-sig", **options)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # pandas raises many types of errors; the user needs the same message
        raise InputError(f"{path}: cannot be read ({in_brief(error)})") from None
    if "index_col" not in options and not isinstance(table.index, pd.RangeIndex):
        raise InputError(f"{path}: its rows have more fields than its header")  # pandas makes them an index
    return table


def check_numbers(table: pd.DataFrame, columns: Iterable[str], path: str | Path) -> None:
    """Raises InputError for columns with a cell that is not a number or has too many digits.

    Cells may be empty.
    """
    problems = []
    for name in columns:
        if len(table) and table[name].dtype.kind not in "fiu":
            texts = table[name].dropna().astype(str)
            wrong = texts[pd.to_numeric(texts, errors="coerce").isna()]
            example = f", such as {wrong.iloc[0]!r}" if len(wrong) else ""
            problems.append(f"{path}: column {name} holds values that are not numbers{example}")
    if problems:
        raise InputError(problems)
