"""Tables of a user: a CSV, TSV, JSON-lines or parquet file, or a split of a data set on the hub."""

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from dataloader.building.downloads import Files, Unavailable
from dataloader.building.recipe import Row, parquet_rows
from dataloader.errors import InputError, in_brief
from dataloader.jsonfile import parse_json, parse_json_object

HUB = "hub:"
HUB_FORM = "hub:owner/name[:config[:split]]"
_HUB = re.compile(r"(?P<repository>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^:]*))?(?::(?P<split>[^:]+))?")
FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")

Numbered = Iterator[tuple[int, Row | str]]  # line number, and the row or what is wrong with the line


@dataclass(frozen=True)
class Table:
    """source: as typed. columns: the names of all columns. rows, malformed: with the number of the line.

    A CSV or TSV line has texts, the others have any values. In parquet files, rows are counted from 1.
    """

    source: str
    columns: list[str]
    rows: list[tuple[int, Row]]
    malformed: list[tuple[int, str]]


def read_table(source: str, needed: Collection[str], files: Files, class_names: bool = True) -> Table:
    """Returns the table at a path, or at HUB_FORM (by default, the split train of the default configuration).

    needed: columns that are read from parquet files. class_names: whether the labels of a ClassLabel column
    of `datasets` are replaced by their names; rows without a label are malformed then.
    Raises InputError, which begins with the source, if it cannot be read.
    """
    path, ending = Path(source), Path(source).suffix.lower()
    try:
        if source.startswith(HUB):
            if not (match := _HUB.fullmatch(source.removeprefix(HUB))):
                raise InputError(f"{source}: expected {HUB_FORM}")
            paths = files.parquet(match["repository"], match["config"] or "", match["split"] or "train")
            columns, numbered = _parquet(paths, needed, class_names)
        elif ending not in FORMATS:
            raise InputError(f"{source}: expected a file *{', *'.join(FORMATS)}, or {HUB_FORM}")
        elif ending == ".parquet":
            columns, numbered = _parquet([path], needed, class_names)
        else:
            columns, numbered = _json_lines(path) if ending == ".jsonl" else _delimited(path)
        lines = list(numbered)
    except Unavailable as error:
        raise InputError(f"{source}: {error}") from None
    except OSError as error:
        raise InputError(f"{source}: {error.strerror or in_brief(error)}") from None
    if not lines:
        raise InputError(f"{source} has no rows")
    rows = [(number, row) for number, row in lines if isinstance(row, dict)]
    malformed = [(number, row) for number, row in lines if isinstance(row, str)]
    if not rows and not columns:
        raise InputError(f"{source}:{malformed[0][0]}: {malformed[0][1]}")
    if not columns:  # of JSON lines: those of any line
        columns = list(dict.fromkeys(name for _, row in rows for name in row))
    return Table(source, columns, rows, malformed)


# ---------------------------------------------------------------------------- texts


def _delimited(path: Path) -> tuple[list[str], Numbered]:
    text = _text(path)
    first = text.partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    if "," not in first:  # spreadsheets write semicolons where the comma is decimal
        delimiter = next((mark for mark in "\t;" if mark in first), delimiter)
    quoting = csv.QUOTE_MINIMAL
    if delimiter == "\t":
        try:
            list(_records(path, text, delimiter, quoting))
        except InputError:
            quoting = csv.QUOTE_NONE  # quotation marks that do not fit around cells are text
    records = _records(path, text, delimiter, quoting)
    header = next(records, (1, []))[1]
    if not header:
        raise InputError(f"{path} does not begin with a line of column names")
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise InputError(f"{path}: the column {twice[0]!r} is there twice")
    wrong = f"cells, the header has {len(header)}"
    return header, (
        (
            number,
            dict(zip(header, cells, strict=True)) if len(cells) == len(header) else f"{len(cells)} {wrong}",
        )
        for number, cells in records
        if cells
    )


def _records(path: Path, text: str, delimiter: str, quoting: int) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, cells). Raises InputError where what follows cannot be divided into records."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    while True:
        number = lines.line_num + 1  # a record may have several lines
        try:
            yield number, next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{path}, line {number}: {error}; a quotation mark inside a field is written twice"
            ) from None


def _json_lines(path: Path) -> tuple[list[str], Numbered]:
    lines = enumerate(_text(path).split("\n"), start=1)
    return [], ((number, _json_row(line)) for number, line in lines if line.strip())


def _json_row(line: str) -> Row | str:
    try:
        return parse_json_object(line)
    except InputError as error:
        return str(error)


def _text(path: Path) -> str:
    """Returns the content without byte order mark. Raises InputError with the line that is not UTF-8."""
    content = path.read_bytes()
    if b"\0" in content:
        raise InputError(f"{path} is a binary file, or text that is not saved as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from None


# ---------------------------------------------------------------------------- parquet


def _parquet(paths: list[Path], needed: Collection[str], class_names: bool) -> tuple[list[str], Numbered]:
    import pyarrow  # imported late: other formats do not need it
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(paths[0])
    except pyarrow.ArrowException as error:
        raise Unavailable(f"it cannot be read as parquet ({in_brief(error)})") from None
    # Without a wanted column, rows are counted all the same.
    read = tuple(name for name in schema.names if name in needed) or tuple(schema.names[:1])
    described = parse_json((schema.metadata or {}).get(b"huggingface", b"{}").decode())
    features = described.get("info", {}).get("features", {}) if class_names else {}
    classes = {
        name: kind["names"]
        for name, kind in features.items()
        if name in read and isinstance(kind, dict) and kind.get("_type") == "ClassLabel"
    }
    rows = (row for path in paths for row in parquet_rows(path, read))
    return schema.names, ((number, _with_names(row, classes)) for number, row in enumerate(rows, start=1))


def _with_names(row: Row, classes: dict[str, list[str]]) -> Row | str:
    for column, names in classes.items():
        value = row[column]
        if value is not None and not 0 <= value < len(names):  # -1 in test splits without labels
            return f"column {column!r} is {value}, expected 0 to {len(names) - 1} ({', '.join(names)})"
        row[column] = None if value is None else names[value]
    return row
