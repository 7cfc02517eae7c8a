"""Reads JSON with errors that name the file, line and column."""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dataloader.errors import InputError


def distinct(pairs: list[tuple[str, Any]]) -> dict:
    """Returns the object of the pairs. Raises InputError for a key that is given twice."""
    value = dict(pairs)
    if len(value) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise InputError(f"the key {key!r} is given twice")
    return value


def parse_json(text: str, as_object: Callable[[list], dict] = distinct) -> Any:
    """Returns the value of a JSON text. Raises InputError, which says what is wrong and where.

    as_object: dict lets the last value of a key count, as in downloaded files, which a user cannot correct.
    """
    try:
        value = json.loads(text, object_pairs_hook=as_object)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        problem = f"{error.msg} ({line}column {error.colno})"
    except RecursionError:
        problem = "nested too deeply"
    except UnicodeEncodeError:
        problem = "a text holds half of a surrogate pair, which is not a character"
    except InputError as error:  # of `distinct`
        problem = str(error)
    except ValueError:  # of int()
        problem = "an integer has too many digits"
    raise InputError(f"not valid JSON: {problem}")


def parse_json_object(line: str) -> dict:
    """Returns the JSON object of a line. Raises InputError as `parse_json`, and for another JSON value."""
    value = parse_json(line)
    if not isinstance(value, dict):
        raise InputError(f"holds {kind_of(value)}, expected a JSON object")
    return value


def load_json_object(path: str | os.PathLike, what: str) -> dict:
    """Returns the JSON object in `path`. Raises InputError. what: the file's kind, such as "a split file"."""
    path = Path(path)
    try:
        value = parse_json(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file (expected {what})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}), expected {what}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected {what}") from None
    except InputError as error:
        raise InputError(f"{path} is {error}, expected {what}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {kind_of(value)}, expected {what}, a JSON object")
    return value


def kind_of(value: Any) -> str:
    """Returns the type of a JSON value in words, such as "a list"."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
