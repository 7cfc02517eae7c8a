"""Reads one task file: each row has an input, accepted answers and, in JSON lines, optional answer options.

    x_train.tsv      a line: input TAB answer [TAB another answer ...]
    x_train.jsonl    a line: {"input": "...", "outputs": ["answer", ...], "options": ["answer", "other", ...]}

Both are UTF-8. JSON texts may contain tabs and line breaks, TSV texts may not.
"""

import codecs
import os
from collections.abc import Callable
from pathlib import Path

from dataloader.errors import InputError, counted
from dataloader.jsonfile import kind_of, parse_json_object

PROBLEMS_SHOWN = 5  # of one file

Row = tuple[str, tuple[str, ...]]  # input, accepted answers
RowWithOptions = tuple[str, tuple[str, ...], tuple[str, ...]]  # ... and options; () for none


class MalformedLines(InputError):
    """The malformed lines of one file, as pairs of a line number and what is wrong."""

    def __init__(self, path: Path, lines: list[tuple[int, str]]):
        more = f", the first {PROBLEMS_SHOWN} of them" if len(lines) > PROBLEMS_SHOWN else ""
        head = f"{path}: {counted(len(lines), 'malformed line')}{more} (--skip_malformed leaves them out):"
        shown = [f"{path.name}:{number}: {problem}" for number, problem in lines[:PROBLEMS_SHOWN]]
        super().__init__("\n  ".join([head, *shown]))


def read_task_file(
    path: str | os.PathLike, skip_malformed: bool = False
) -> tuple[list[Row | RowWithOptions], int]:
    """Returns the rows of a .jsonl or .tsv file and the number of skipped lines, by the functions below."""
    return (read_jsonl if Path(path).suffix == ".jsonl" else read_tsv)(path, skip_malformed)


def read_tsv(path: str | os.PathLike, skip_malformed: bool = False) -> tuple[list[Row], int]:
    """Reads a TSV file; returns ([(input, (answer, ...)), ...], number of skipped lines).

    Lines end only at "\\n" or "\\r\\n", because texts may contain other line separators. Spaces around fields
    and empty answers next to non-empty ones are removed. A line is malformed if it is blank, has no tab, an
    empty input, only empty answers, a carriage return inside, or bytes that are not UTF-8.

    Raises one InputError for all malformed lines of the file. With `skip_malformed`, they are skipped and
    counted. A file without a usable line is an error.
    """
    return _read_lines(path, _parse_fields, "input TAB answer", skip_malformed)


def read_jsonl(path: str | os.PathLike, skip_malformed: bool = False) -> tuple[list[RowWithOptions], int]:
    """Reads a JSON-lines file; returns ([(input, (answer, ...), (option, ...)), ...], skipped lines).

    Spaces around a text are removed; tabs and line breaks inside it are kept. "options" may be missing or
    null; otherwise they must include an accepted answer. Malformed lines are handled as in `read_tsv`.
    """
    return _read_lines(path, _parse_json, '{"input": text, "outputs": [text, ...]}', skip_malformed)


def _read_lines(
    path: str | os.PathLike, parse: Callable[[str], tuple | str], line_format: str, skip_malformed: bool
) -> tuple[list[tuple], int]:
    """parse: returns a line's row, or a string that says what is wrong with it."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    problems: list[tuple[int, str]] = []
    content = content.removeprefix(codecs.BOM_UTF8)
    if not content:
        raise InputError(f"{path} is empty, expected lines of {line_format}")
    rows: list[tuple] = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
        row = _parse_line(line.removesuffix(b"\r"), parse)
        if isinstance(row, str):
            problems.append((number, row))
        else:
            rows.append(row)
    if problems and not skip_malformed:
        raise MalformedLines(path, problems)
    if not rows:
        raise InputError(
            f"{path} has no usable line, all {len(problems)} are malformed, such as: {problems[0][1]}"
        )
    return rows, len(problems)


def _parse_line(line: bytes, parse: Callable[[str], tuple | str]) -> tuple | str:
    """Returns the row, or what is wrong with the line."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"byte {error.start + 1} of the line is not UTF-8"
    return parse(text) if text.strip() else "blank line"


def _parse_fields(text: str) -> Row | str:
    if "\r" in text:
        return "carriage return inside the line"
    # Split before stripping: stripping the whole line would make the answer the input if the input is empty.
    source, *answers = (field.strip() for field in text.split("\t"))
    if not answers:
        return "no answer (no tab in the line)"
    outputs = tuple(answer for answer in answers if answer)
    if not source and outputs:
        return "empty input"
    return (source, outputs) if outputs else "empty answer"


# ---------------------------------------------------------------------------- a line of JSON


def _parse_json(text: str) -> RowWithOptions | str:
    try:
        line = parse_json_object(text)
    except InputError as error:
        return str(error)
    source, outputs, options = line.get("input"), line.get("outputs"), line.get("options")
    missing = [key for key in ("input", "outputs") if key not in line]
    if missing:
        return f'no "{missing[0]}" (its keys: {", ".join(line) or "none"})'
    if problem := row_problem(source, outputs, options):
        return problem
    return source.strip(), _stripped(outputs), _stripped(options or [])


def row_problem(source, outputs, options) -> str | None:
    """Returns what is wrong with an input, its accepted answers and its options (None: none), else None."""
    if problem := _text_problem(source, "input"):
        return problem
    for name, texts in (("outputs", outputs), ("options", options)):
        if name == "options" and texts is None:
            return None
        if not isinstance(texts, list) or not texts:
            found = "an empty list" if texts == [] else kind_of(texts)
            return f'"{name}" is {found}, expected a list of strings'
        for index, text in enumerate(texts):
            if problem := _text_problem(text, f"{name}[{index}]"):
                return problem
    accepted, offered = _stripped(outputs), _stripped(options)
    if len(set(offered)) < max(2, len(offered)):
        return '"options" are not two or more different texts'
    if not set(accepted) & set(offered):
        return f'"options" holds none of the outputs ({accepted[0]!r} is not among them)'
    return None


def _text_problem(value, name: str) -> str | None:
    if not isinstance(value, str):
        return f'"{name}" is {kind_of(value)}, expected a string'
    return None if value.strip() else f'"{name}" is empty'


def _stripped(texts: list[str]) -> tuple[str, ...]:
    return tuple(text.strip() for text in texts)
