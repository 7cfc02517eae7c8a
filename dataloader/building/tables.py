"""Tables of a user, and the examples that templates such as "question: {q}" make from their rows.

A table is a CSV, TSV, JSON-lines or parquet file, or a split of a data set on the hub.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataloader.building.downloads import Files, Unavailable
from dataloader.building.recipe import Examples, Row, parquet_rows
from dataloader.building.text import LETTERS, clean, lettered
from dataloader.errors import InputError, did_you_mean, in_brief, in_short
from dataloader.jsonfile import parse_json_object
from dataloader.metrics import answer_problem
from dataloader.task_files import Turns, checked_row, checked_turns, last_input, trimmed, whole_text

HUB = "hub:"
HUB_FORM = "hub:owner/name[:config[:split]]"
_HUB = re.compile(r"(?P<repository>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^:]*))?(?::(?P<split>[^:]+))?")
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")  # a brace, or a field {column} or {column[key]}
FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
NEARLY_ALL = 0.95  # of the rows

Kept = str | dict  # of a `Template`
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


def read_table(source: str, needed: Collection[str], files: Files) -> Table:
    """Returns the table at a path, or at HUB_FORM (by default, the split train of the default configuration).

    needed: columns that are read from parquet files. Raises InputError, which begins with the source.
    """
    path, ending = Path(source), Path(source).suffix.lower()
    columns: list[str] = []
    try:
        if source.startswith(HUB):
            if not (match := _HUB.fullmatch(source.removeprefix(HUB))):
                raise InputError(f"{source}: expected {HUB_FORM}")
            paths = files.parquet(match["repository"], match["config"] or "", match["split"] or "train")
            columns, numbered = _parquet(paths, needed)
        elif ending not in FORMATS:
            raise InputError(f"{source}: expected a file *{', *'.join(FORMATS)}, or {HUB_FORM}")
        elif ending == ".parquet":
            columns, numbered = _parquet([path], needed)
        elif ending == ".jsonl":
            numbered = _json_lines(path)
        else:
            columns, numbered = _delimited(path, "\t" if ending == ".tsv" else None)
        lines = list(numbered)
    except Unavailable as error:
        raise InputError(f"{source}: {error}") from None
    except OSError as error:
        raise InputError(f"{source}: {error.strerror or in_brief(error)}") from None
    rows = [(number, row) for number, row in lines if isinstance(row, dict)]
    malformed = [(number, row) for number, row in lines if isinstance(row, str)]
    if not rows:
        raise InputError(
            f"{source}:{malformed[0][0]}: {malformed[0][1]}" if lines else f"{source} has no rows"
        )
    if not columns:  # of JSON lines: those of any line
        columns = list(dict.fromkeys(name for _, row in rows for name in row))
    return Table(source, columns, rows, malformed)


def _parquet(paths: list[Path], needed: Collection[str]) -> tuple[list[str], Numbered]:
    import pyarrow  # imported late: other formats do not need it
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(paths[0])
    except pyarrow.ArrowException as error:
        raise Unavailable(f"it cannot be read as parquet ({in_brief(error)})") from None
    # Without a wanted column, rows are counted all the same.
    kinds = dict(zip(schema.names, schema.types, strict=True))
    read = tuple(name for name in schema.names if name in needed) or tuple(schema.names[:1])
    rows = (row for path in paths for row in parquet_rows(path, read))
    shortest = ({name: _shortest(value, kinds[name]) for name, value in row.items()} for row in rows)
    return schema.names, enumerate(shortest, start=1)


def _shortest(value, kind):
    """Returns a value of a parquet column; 3.4 in 32 bits is 3.4, not the 3.4000000953674316 of 64 bits."""
    if isinstance(value, dict):
        return {key: _shortest(item, kind.field(key).type) for key, item in value.items()}
    kind = getattr(kind, "value_type", kind)  # of a list
    if isinstance(value, list):
        return [_shortest(item, kind) for item in value]
    is_short = value is not None and str(kind) in ("float", "halffloat")
    return float(str(kind.to_pandas_dtype()(value))) if is_short else value


def _json_lines(path: Path) -> Numbered:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            try:
                yield number, parse_json_object(line)
            except InputError as error:
                yield number, str(error)


def _delimited(path: Path, delimiter: str | None) -> tuple[list[str], Numbered]:
    """delimiter: None: the one that the line of column names has most often, then the line after it."""
    text = _text(path)
    first = text.split("\n", 2)[:2]
    delimiter = delimiter or max(",;\t", key=lambda mark: [line.count(mark) for line in first])
    records = _records(path, text, delimiter)
    header = next(records, (1, []))[1]
    if not header:
        raise InputError(f"{path} does not begin with a line of column names")
    if twice := [name for name in header if header.count(name) > 1]:
        raise InputError(f"{path}: the column {twice[0]!r} is there twice")

    def row_of(cells: list[str]) -> Row | str:
        wrong = f"{len(cells)} cells, the header has {len(header)}"
        return dict(zip(header, cells, strict=True)) if len(cells) == len(header) else wrong

    return header, ((number, row_of(cells)) for number, cells in records if cells)


def _records(path: Path, text: str, delimiter: str, quoting: int = csv.QUOTE_MINIMAL) -> Iterator:
    """Yields (line number, cells). Raises InputError where what follows cannot be divided into records."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    records, number = [], 1
    try:
        for cells in lines:
            records.append((number, cells))
            number = lines.line_num + 1  # a record may have several lines
    except csv.Error as error:
        if delimiter == "\t" and quoting == csv.QUOTE_MINIMAL:  # the quotation marks are text
            return _records(path, text, delimiter, csv.QUOTE_NONE)
        hint = "a quotation mark inside a field is written twice"
        raise InputError(f"{path}, line {number}: {error}; {hint}") from None
    across = any("\t" in cell and "\n" in cell for _, cells in records for cell in cells)
    if across and delimiter == "\t" and quoting == csv.QUOTE_MINIMAL:  # are the quotation marks text?
        plain, width = list(_records(path, text, delimiter, csv.QUOTE_NONE)), len(records[0][1])
        widths, of_plain = ([len(cells) for _, cells in rows] for rows in (records, plain))
        records = plain if of_plain.count(width) > widths.count(width) else records
    return iter(records)


def _text(path: Path) -> str:
    """Returns the content without byte order mark. Raises InputError with the line that is not UTF-8."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from None


# ---------------------------------------------------------------------------- templates


def column_of(field: str) -> str:
    return field.partition("[")[0] or field


def value_of(row: Row, field: str):
    """Returns the value of a field, None if there is none. Raises ValueError if a key is missing."""
    if field in row:
        return row[field]
    value = row.get(column_of(field))
    for key in re.findall(r"\[([^\]]+)\]", field):
        value = None if value is None else _at(value, key, field)
    return value


def _at(value, key: str, field: str):
    if isinstance(value, list) and re.fullmatch(r"-?\d+", key) and -len(value) <= int(key) < len(value):
        return value[int(key)]
    if isinstance(value, list):
        _check_no_chat(value, field)
        return [_at(item, key, field) for item in value]
    if not isinstance(value, dict) or key not in value:
        raise ValueError(f"no {key!r} in {field!r}, whose value is {in_short([repr(value)])}")
    return value[key]


def _check_no_chat(values: list, field: str) -> None:
    """Raises ValueError for turns, of which one is the answer."""
    if any(isinstance(value, dict) and {"role", "content"} <= value.keys() for value in values):
        ways = f"add-task --messages {column_of(field)}, or one turn, {{{column_of(field)}[-1][content]}}"
        raise ValueError(f"{field!r} joins the turns of a chat; give {ways}")


def texts_in(value, field: str, cleaned: Callable[[str], str] = clean) -> list[str]:
    """Returns the cleaned texts of a value, each element of a list, "" for an empty value."""
    if isinstance(value, list):
        _check_no_chat(value, field)
        return [text for item in value for text in texts_in(item, field, cleaned)]
    if isinstance(value, dict):
        raise ValueError(f"{field!r} is an object; name a key of it: {field}[{next(iter(value), 'key')}]")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return [""]
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas stores a column of integers as floats if one is missing
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"column {field!r} is binary, not UTF-8 text") from None
    return [cleaned(str(value))]


@dataclass(frozen=True)
class Template:
    """A text with columns in braces, such as {answers[text]}; {{ is a brace. flag: where it was typed.

    keep_whitespace: else each run of white space becomes one space. is_chat: its only column has chats.
    """

    flag: str
    text: str
    keep_whitespace: bool = False
    is_chat: bool = False

    def __post_init__(self):
        if re.search("[\ud800-\udfff]", self.text):  # of bytes that Python could not decode
            raise InputError(f"{self.flag} {self.text!r}: not UTF-8 text")
        if re.search("[{}]", _PIECE.sub("", self.text)) or "" in self.fields:
            raise InputError(f"{self.flag} {self.text!r}: write {{column}}, and {{{{ }}}} for braces")

    @property
    def fields(self) -> list[str]:
        return [match[1] for match in _PIECE.finditer(self.text) if match[1] is not None]

    @property
    def kept(self) -> Kept:
        """The text, or all fields but the flag: what a gym and a checkpoint keep."""
        fields = {name: value for name, value in vars(self).items() if name != "flag"}
        return fields if self.keep_whitespace else self.text

    def cleaned(self, text: str) -> str:
        return trimmed(text) if self.keep_whitespace else clean(text)

    def turns(self, row: Row) -> Turns:
        """Returns the turns of a chat, or the text as that of the user. Raises ValueError."""
        if self.is_chat:
            return checked_turns(value_of(row, self.fields[0]), self.fields[0])
        return ({"role": "user", "content": self.single_text(row)},)

    def check(self, table: Table) -> None:
        """Raises InputError for a column that the table does not have."""
        for field in self.fields:
            if field not in table.columns and column_of(field) not in table.columns:
                hint = did_you_mean(field, table.columns)
                raise InputError(
                    f"{self.flag} {self.text!r}: {table.source} has no column {field!r}{hint} "
                    f"(its columns: {in_short(table.columns, 20)})"
                )

    def places(self, row: Row, answers: Sequence[str]) -> list[tuple[str, int]]:
        """Returns the columns, and the places in their lists, that have an answer as their text."""
        names = () if self.is_chat else self.fields
        texts = {name: texts_in(value_of(row, name), name, self.cleaned) for name in names}
        return [(name, i) for name in texts for i, text in enumerate(texts[name]) if text in answers]

    def single_text(self, row: Row) -> str:
        """Returns the text of a row; a list is "(A) first (B) second". Raises ValueError if one is empty."""
        texts = []
        for field in self.fields:
            value = value_of(row, field)
            values = [text for text in texts_in(value, field, self.cleaned) if text]
            if not 1 <= len(values) <= len(LETTERS):
                raise ValueError(f"column {field!r} is empty, or a list of more than {len(LETTERS)} values")
            texts.append(lettered(values).strip() if isinstance(value, list) else values[0])
        return self._filled(texts)

    def texts(self, row: Row) -> list[str]:
        """Returns the text of a row, or one for each element of a column with a list.

        A text with an empty value is "". Raises ValueError for lists of different lengths.
        """
        values = [texts_in(value_of(row, field), field, self.cleaned) or [""] for field in self.fields]
        n = max(map(len, values), default=1)
        if any(len(texts) not in (1, n) for texts in values):
            raise ValueError(f"the lists of {self.text!r} differ in length")
        repeated = [texts * n if len(texts) == 1 else texts for texts in values]
        rows = zip(*repeated, strict=True) if repeated else [()]  # one without texts for a word
        return [self._filled(texts) if all(texts) else "" for texts in rows]

    def _filled(self, texts: Sequence[str]) -> str:
        rest = iter(texts)
        filled = _PIECE.sub(lambda match: match[0][0] if match[1] is None else next(rest), self.text)
        return self.cleaned(filled)


@dataclass(frozen=True)
class Templates:
    """The templates of a task: of its input, of its accepted answers, and of its options, () for none.

    output: () if the last turn of a chat is the answer. labels: names of what --output counts, from 0 or from
    A; () for none.
    """

    input: Template
    output: tuple[Template, ...]
    options: tuple[Template, ...] = ()
    labels: tuple[Template, ...] = ()

    def __post_init__(self):
        for template in (self.input, *self.output):
            if not template.fields:
                raise InputError(f"{template.flag} {template.text!r} names no column; write {{column}}")

    @property
    def all(self) -> tuple[Template, ...]:
        return (self.input, *self.output, *self.options, *self.labels)

    def example(self, row: Row) -> tuple[str, str] | tuple[str, str, dict]:
        """Returns (input, answers separated by tabs), and what else a JSON line has. Raises ValueError."""
        turns = self.input.turns(row)
        source, before = last_input(turns)
        outputs = [text for template in self.output for text in template.texts(row) if text]
        if not self.output and turns[-1]["role"] == "assistant":
            outputs = [turns[-1]["content"]]
        options = [text for template in self.options for text in template.texts(row) if text]
        if not outputs:
            ends = f"the chat in {self.input.text!r} ends with the user; its last turn must be the answer"
            raise ValueError(", ".join(self._empty(row)) if self.output else ends)
        if names := [text for template in self.labels for text in template.texts(row)]:
            name_of = dict(zip(map(str, range(len(names))), names, strict=True))
            name_of |= dict(zip(LETTERS, names, strict=False))
            if unnamed := [text for text in outputs if text not in name_of]:
                raise ValueError(f"the label {unnamed[0]!r} has no name in --labels (0 is {names[0]!r})")
            outputs = [name_of[text] for text in outputs]
        checked_row(source, outputs, options if self.options else None)
        outputs = list(dict.fromkeys(outputs))
        further = {"options": options} if self.options else {}
        further |= {"before": list(before)} if before else {}
        further |= {"input": source, "outputs": outputs} if self.input.keep_whitespace else {}
        texts = whole_text(source, before), "\t".join(outputs)
        return (*texts, further) if further else texts

    def _empty(self, row: Row) -> list[str]:
        """Returns what is wrong with the columns of --output, of which none makes a text."""
        texts = {name: texts_in(value_of(row, name), name) for each in self.output for name in each.fields}
        return [f"column {name!r} is empty" for name, found in texts.items() if not all(found or [""])]


def examples_of(table: Table, templates: Templates, metric: str) -> tuple[Examples, list, list[str]]:
    """Returns the examples, malformed lines with their problems, and warnings."""
    examples, malformed, with_answer = [], list(table.malformed), Counter()
    for number, row in table.rows:
        try:
            example = templates.example(row)
            if problem := answer_problem(example[1].split("\t")[0], metric):
                raise ValueError(problem)
            examples.append(example)
            with_answer.update(templates.input.places(row, example[1].split("\t")))
        except ValueError as error:
            malformed.append((number, str(error)))
    warnings = [
        f"{table.source}: {{{name}}} of the input is the answer in {n} of {len(examples)} rows"
        for (name, _), n in with_answer.items()
        if n >= NEARLY_ALL * len(examples)
    ]
    return examples, sorted(malformed), warnings
