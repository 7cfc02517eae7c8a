"""Reads JSON with errors that name the file, line and column."""

from __future__ import annotations

import json
import os
from pathlib import Path

from dataloader.errors import InputError


def load_json_object(path: str | os.PathLike, what: str) -> dict:
    """Returns the JSON object in `path`.

    what: the kind of file, for errors, such as "a split file".
    Raises InputError if the file is missing or unreadable, is not JSON (with line and column), or contains
    another JSON value than an object.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file (expected {what})") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, expected {what}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}), expected {what}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected {what}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path} is not valid JSON: {error.msg} ({where}), expected {what}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {kind_of(value)}, expected {what}, a JSON object")
    return value


def kind_of(value) -> str:
    """Returns the type of a JSON value in words, such as "a list"."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
