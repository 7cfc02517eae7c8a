"""Reads JSON with errors that name the file, line and column."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from dataloader.errors import InputError

MOST_DIGITS = 18  # of an integer in a file of settings or results; longer ones may not fit in 64 bits


class NotJson(ValueError):
    """A text is invalid JSON, or JSON that cannot be read. `line` and `column` are None if unknown."""

    def __init__(self, reason: str, line: int | None = None, column: int | None = None):
        super().__init__(reason)
        self.reason, self.line, self.column = reason, line, column


def parse_json(text: str, most_digits: int | None = None):
    """Returns the value of a JSON text.

    most_digits: maximum length of an integer; None: Python's limit (4,300).
    Raises NotJson for invalid JSON, an integer that is too long, or brackets nested too deeply.
    """

    def whole_number(number: str) -> int:
        digits, most = len(number.lstrip("-")), most_digits or sys.get_int_max_str_digits()
        if most and digits > most:
            raise NotJson(f"it has an integer of {digits} digits, at most {most} are allowed")
        return int(number)

    try:
        return json.loads(text, parse_int=whole_number)
    except json.JSONDecodeError as error:
        raise NotJson(error.msg, error.lineno, error.colno) from None
    except RecursionError:
        raise NotJson("its brackets are nested too deeply") from None


def load_json_object(path: str | os.PathLike, what: str) -> dict:
    """Returns the JSON object in `path`.

    what: the kind of file, for errors, such as "a split file".
    Raises InputError if the file is missing or unreadable, is not JSON (with line and column), or contains
    another JSON value than an object.
    """
    path = Path(path)
    try:
        value = parse_json(path.read_bytes().decode("utf-8-sig"), MOST_DIGITS)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file (expected {what})") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, expected {what}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}), expected {what}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected {what}") from None
    except NotJson as error:
        where = f" (line {error.line}, column {error.column})" if error.line else ""
        raise InputError(f"{path} is not valid JSON: {error.reason}{where}, expected {what}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {kind_of(value)}, expected {what}, a JSON object")
    return value


def kind_of(value) -> str:
    """Returns the type of a JSON value in words, such as "a list"."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
