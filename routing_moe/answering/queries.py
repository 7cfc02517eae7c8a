"""Texts to answer, one a line. Does not import torch.

new.txt      a text a line
new.tsv      a text a line, up to the first tab: files of a gym can be given
new.jsonl    {"input": "...", "options": ["...", "..."]} a line; options may be missing
"""

import codecs
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dataloader.errors import InputError
from dataloader.jsonfile import kind_of, parse_json_object

STDIN = STDOUT = "-"
HALF_OF_A_PAIR = re.compile("[\ud800-\udfff]")  # in Python, but in no file: of arguments, or Python callers


@dataclass(frozen=True)
class Query:
    """A text to answer. options: the answers to choose from, () to generate one."""

    input: str
    options: tuple[str, ...] = ()


def text_problem(text: str) -> str | None:
    """Returns what is wrong with a text, or None."""
    if HALF_OF_A_PAIR.search(text):
        return "holds half of a surrogate pair, which is not a character"
    return None if text.strip() else "is empty"


def problem_of(query: Query) -> str | None:
    """Returns what is wrong with a text or its options, or None."""
    if not query.input.strip():
        return "empty, but must have a text to answer"
    if problem := text_problem(query.input):
        return problem
    if problems := list(filter(None, map(text_problem, query.options))):
        return f"an option {problems[0]}"
    if len(set(query.options)) == 1:
        return f"{query.options[0]!r} is the only option; give at least two different ones, or none"
    return None


def read_queries(source: str, options: tuple[str, ...] = ()) -> Iterator[Query]:
    """Yields the texts of a file, or of standard input. options: for texts that have none of their own.

    Raises InputError that names the line: of an empty text, of bytes that are not UTF-8, of wrong JSON, of a
    single option.
    """
    parse = {".tsv": _of_tsv, ".jsonl": _of_json}.get(Path(source).suffix, Query)
    for number, line in enumerate(_lines(source), start=1):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            query = parse(line.decode("utf-8").rstrip("\r\n"))
        except UnicodeDecodeError as error:
            raise InputError(
                f"{source}:{number}: byte {error.start + 1} of the line is not UTF-8; give a text file"
            ) from None
        except ValueError as error:
            raise InputError(f"{source}:{number}: {error}") from None
        query = query if query.options else Query(query.input, options)
        if problem := problem_of(query):
            raise InputError(f"{source}:{number}: {problem}")
        yield query


def _lines(source: str) -> Iterator[bytes]:
    if source == STDIN:
        yield from sys.stdin.buffer
        return
    try:
        with open(source, "rb") as file:
            yield from file
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from None


def _of_tsv(line: str) -> Query:
    return Query(line.split("\t", 1)[0])


def _of_json(line: str) -> Query:
    fields, wanted = parse_json_object(line), '{"input": text, "options": [text, ...]}'
    if not isinstance(fields.get("input"), str):
        raise ValueError(f"expected {wanted}")
    options = fields.get("options") or []
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ValueError(f"options is {kind_of(options)}; expected {wanted}")
    return Query(fields["input"], tuple(options))
