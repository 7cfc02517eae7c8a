"""Examples from the rows of a table, by templates such as "question: {q}"."""

import math
import re
from dataclasses import dataclass

from dataloader.building.recipe import Examples, Row
from dataloader.building.tables import Table
from dataloader.building.text import LETTERS, clean, lettered
from dataloader.errors import InputError, did_you_mean, in_short
from dataloader.metrics import answer_problem
from dataloader.task_files import row_problem

# Texts of cells that count as empty, as pandas writes them; "Na" and "None" are texts.
NOT_AVAILABLE = ("NaN", "nan", "NA")
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")  # a brace, or a field {column} or {column[key]}


def column_of(field: str) -> str:
    return field.partition("[")[0] or field


def value_of(row: Row, field: str):
    """Returns the value of a field, None if there is none. Raises ValueError if a key is missing."""
    if field in row:
        return _available(row[field])
    value = _available(row.get(column_of(field)))
    for key in re.findall(r"\[([^\]]+)\]", field):
        value = None if value is None else _available(_at(value, key, field))
    return value


def _available(value):
    return None if isinstance(value, str) and value.strip() in NOT_AVAILABLE else value


def _at(value, key: str, field: str):
    if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
        return value[int(key)]
    if isinstance(value, list):
        return [_at(item, key, field) for item in value]
    if not isinstance(value, dict) or key not in value:
        has = f"has the keys {', '.join(map(str, value))}" if isinstance(value, dict) else f"is {value!r}"
        raise ValueError(f"no {key!r} in {field!r}, whose value {has}")
    return value[key]


def texts_in(value, field: str) -> list[str]:
    """Returns the cleaned texts of a value, "" for an empty one; tabs separate several, as in a gym."""
    if isinstance(value, list):
        return [text for item in value for text in texts_in(item, field)]
    if isinstance(value, dict):
        raise ValueError(f"{field!r} is an object; name a key of it: {field}[{next(iter(value), 'key')}]")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return [""]
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas stores a column of integers as floats if one is missing
    return [clean(text) for text in str(value).split("\t")]


@dataclass(frozen=True)
class Template:
    """A text with columns in braces, such as {answers[text]}; {{ is a brace. flag: where it was typed."""

    flag: str
    text: str

    def __post_init__(self):
        if re.search("[{}]", _PIECE.sub("", self.text)) or "" in self.fields:
            raise InputError(f"{self.flag} {self.text!r}: write {{column}}, and {{{{ }}}} for braces")

    @property
    def fields(self) -> list[str]:
        return [match[1] for match in _PIECE.finditer(self.text) if match[1] is not None]

    def check(self, table: Table) -> None:
        """Raises InputError for a column that the table does not have."""
        for field in self.fields:
            if field not in table.columns and column_of(field) not in table.columns:
                hint = did_you_mean(field, table.columns)
                raise InputError(
                    f"{self.flag} {self.text!r}: {table.source} has no column {field!r}{hint} "
                    f"(its columns: {in_short(table.columns, 20)})"
                )

    def single_text(self, row: Row) -> str:
        """Returns the text of a row; a list is "(A) first (B) second". Raises ValueError if one is empty."""
        texts = []
        for field in self.fields:
            value = value_of(row, field)
            values = [text for text in texts_in(value, field) if text]
            if not values:
                raise ValueError(f"column {field!r} is empty, NaN or NA")
            if len(values) > len(LETTERS):
                raise ValueError(f"column {field!r} has {len(values)} values, at most {len(LETTERS)} fit")
            texts.append(lettered(values).strip() if isinstance(value, list) else " ".join(values))
        return self._filled(texts)

    def texts(self, row: Row) -> list[str]:
        """Returns the text of a row, or one for each element of a column with a list, or between tabs.

        A text with an empty value is "". Raises ValueError for lists of different lengths.
        """
        values = [texts_in(value_of(row, field), field) or [""] for field in self.fields]
        n = max(map(len, values), default=1)
        if any(len(texts) not in (1, n) for texts in values):
            raise ValueError(f"the lists of {self.text!r} differ in length")
        repeated = [texts * n if len(texts) == 1 else texts for texts in values]
        rows = [[texts[index] for texts in repeated] for index in range(n)]  # one without texts for a word
        return [self._filled(texts) if all(texts) else "" for texts in rows]

    def _filled(self, texts: list[str]) -> str:
        rest = iter(texts)
        return clean(_PIECE.sub(lambda match: match[0][0] if match[1] is None else next(rest), self.text))


@dataclass(frozen=True)
class Templates:
    """The templates of a task: of its input, of its accepted answers, and of its options, () for none.

    label_names: what --output counts, from 0 or from A; or value=name for each value; () for none.
    """

    input: Template
    output: tuple[Template, ...]
    options: tuple[Template, ...] = ()
    label_names: tuple[Template, ...] = ()

    def __post_init__(self):
        for template in (self.input, *self.output):
            if not template.fields:
                raise InputError(f"{template.flag} {template.text!r} names no column; write {{column}}")

    @property
    def all(self) -> tuple[Template, ...]:
        return (self.input, *self.output, *self.options, *self.label_names)

    def example(self, row: Row) -> tuple[str, str] | tuple[str, str, tuple[str, ...]]:
        """Returns (input, answers separated by tabs), and options if there are some. Raises ValueError."""
        source = self.input.single_text(row)
        outputs = [text for template in self.output for text in template.texts(row) if text]
        if not outputs:
            raise ValueError(f"column {self.output[0].fields[0]!r} is empty, NaN or NA")
        if self.label_names:
            outputs = self._named(outputs, row)
        options = [text for template in self.options for text in template.texts(row) if text]
        if problem := row_problem(source, outputs, options if self.options else None):
            raise ValueError(problem)
        answers = "\t".join(dict.fromkeys(outputs))
        return (source, answers, tuple(options)) if self.options else (source, answers)

    def _named(self, outputs: list[str], row: Row) -> list[str]:
        """Returns the names of labels. Raises ValueError for one without a name."""
        words = [clean(template.text) for template in self.label_names if not template.fields]
        if len(words) == len(self.label_names) and all("=" in word for word in words):
            names = dict(word.split("=", 1) for word in words)
        else:
            texts = [text for template in self.label_names for text in template.texts(row)]
            names = dict(zip(map(str, range(len(texts))), texts, strict=True))
            names |= dict(zip(LETTERS, texts, strict=False))
            names = {label: text for label, text in names.items() if text}
        for text in outputs:
            if text not in names:
                raise ValueError(
                    f"the label {text!r} has no name in --label_names (expected {', '.join(names)})"
                )
        return [names[text] for text in outputs]


def examples_of(table: Table, templates: Templates, metric: str) -> tuple[Examples, list[tuple[int, str]]]:
    """Returns the examples, and malformed lines with their problems."""
    examples, malformed = [], list(table.malformed)
    for number, row in table.rows:
        try:
            example = templates.example(row)
            if problem := answer_problem(example[1].split("\t")[0], metric):
                raise ValueError(problem)
            examples.append(example)
        except ValueError as error:
            malformed.append((number, str(error)))
    return examples, sorted(malformed)
