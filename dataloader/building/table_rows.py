"""Examples from the rows of a table, by templates such as "question: {q}"."""

import math
import re
from dataclasses import dataclass
from functools import cached_property
from string import Formatter

from dataloader.building.recipe import Examples, Row
from dataloader.building.tables import Table
from dataloader.building.text import LETTERS, clean, lettered
from dataloader.errors import InputError, did_you_mean, in_short
from dataloader.metrics import answer_problem
from dataloader.task_files import row_problem

# Texts of cells that count as empty, as pandas writes them; "Na" and "None" are texts.
NOT_AVAILABLE = ("NaN", "nan", "NA")
_FIELD = re.compile(r"(?P<column>[^\[]+)(?P<keys>(?:\[[^\]]+\])*)")  # {column}, {column[key]}


# ---------------------------------------------------------------------------- values of a row


def column_of(field: str) -> str:
    match = _FIELD.fullmatch(field)
    return match["column"] if match else field


def value_of(row: Row, field: str):
    """Returns the value of a field, None for NaN and NA. Raises ValueError if a key is missing."""
    if field in row:
        return _available(row[field])
    match = _FIELD.fullmatch(field)
    value = _available(row.get(match["column"]))
    for key in re.findall(r"\[([^\]]+)\]", match["keys"]):
        value = None if value is None else _available(_at(value, key, field))
    return value


def _available(value):
    """Returns the value, or None if it is the text of a cell without one."""
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
    """Returns the cleaned texts of a field's value, "" for an empty one."""
    if isinstance(value, list):
        return [text for item in value for text in texts_in(item, field)]
    if isinstance(value, dict):
        raise ValueError(
            f"{field!r} is an object; name a key of it: {', '.join(f'{field}[{key}]' for key in value)}"
        )
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return [""]
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas stores a column of integers as floats if one is missing
    return [str(value)]


# ---------------------------------------------------------------------------- templates


@dataclass(frozen=True)
class Template:
    """A text with columns in braces. flag: where it was typed.

    {answers[text]} is the value of a key in the values of a column. {{ and }} are braces.
    """

    flag: str
    text: str

    @cached_property
    def parts(self) -> list[tuple[str, str | None]]:
        """Pairs of a text and the field that follows it, None at the end. Raises InputError."""
        try:
            parsed = list(Formatter().parse(self.text))
        except ValueError as error:
            raise InputError(
                f"{self.flag} {self.text!r}: {error}; write {{column}}, and {{{{ }}}} for braces"
            ) from None
        return [
            # A column's name may have the characters that format strings give a meaning.
            (literal, field and field + (f"!{conversion}" if conversion else "") + (spec and f":{spec}"))
            for literal, field, spec, conversion in parsed
        ]

    @property
    def fields(self) -> list[str]:
        return [field for _, field in self.parts if field is not None]

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
            values = [text for text in map(clean, texts_in(value, field)) if text]
            if not values:
                raise ValueError(f"column {field!r} is empty, NaN or NA")
            if len(values) > len(LETTERS):
                raise ValueError(f"column {field!r} has {len(values)} values, at most {len(LETTERS)} fit")
            texts.append(lettered(values).strip() if isinstance(value, list) else values[0])
        return self._filled(texts)

    def texts(self, row: Row) -> list[str]:
        """Returns the text of a row, or one for each element of a column with a list, or between tabs.

        A text with an empty value is "". Raises ValueError for lists of different lengths.
        """
        values = []
        for field in self.fields:
            texts = texts_in(value_of(row, field), field) or [""]
            values.append([clean(part) for text in texts for part in text.split("\t")])
        n = max(map(len, values), default=1)
        if any(len(texts) not in (1, n) for texts in values):
            raise ValueError(f"the lists of {self.text!r} differ in length")
        repeated = [texts * n if len(texts) == 1 else texts for texts in values]
        rows = [[texts[index] for texts in repeated] for index in range(n)]  # one without texts for a word
        return [self._filled(texts) if all(texts) else "" for texts in rows]

    def _filled(self, texts: list[str]) -> str:
        rest = iter(texts)
        return clean(
            "".join(literal + ("" if field is None else next(rest)) for literal, field in self.parts)
        )


@dataclass(frozen=True)
class Templates:
    """The templates of a task: of its input, of its accepted answers, and of its options, () for none.

    label_names: what --output counts, from 0 or from A; or value=name for each value; () for none.
    Raises InputError for one that no table can have.
    """

    input: Template
    output: tuple[Template, ...]
    options: tuple[Template, ...] = ()
    label_names: tuple[Template, ...] = ()

    def __post_init__(self):
        for template in self.all:
            named = template.fields
            if not all(named) or (not named and template in (self.input, *self.output)):
                raise InputError(f"{template.flag} {template.text!r} names no column; write {{column}}")

    @property
    def all(self) -> tuple[Template, ...]:
        return (self.input, *self.output, *self.options, *self.label_names)

    def example(self, row: Row) -> tuple[str, list[str], list[str] | None]:
        """Returns (input, accepted answers, options or None). Raises ValueError for a row without them."""
        source = self.input.single_text(row)
        outputs = [text for template in self.output for text in template.texts(row) if text]
        if not outputs:
            raise ValueError(f"column {self.output[0].fields[0]!r} is empty, NaN or NA")
        if self.label_names:
            outputs = self._named(outputs, row)
        options = [text for template in self.options for text in template.texts(row) if text]
        if problem := row_problem(source, outputs, options if self.options else None):
            raise ValueError(problem)
        return source, list(dict.fromkeys(outputs)), options if self.options else None

    def _named(self, outputs: list[str], row: Row) -> list[str]:
        """Returns the names of labels. Raises ValueError for one without a name."""
        words = [clean(template.text) for template in self.label_names if not template.fields]
        if len(words) == len(self.label_names) and all("=" in word for word in words):
            names = dict(word.split("=", 1) for word in words)
            expected = ", ".join(names)
        else:
            texts = [text for template in self.label_names for text in template.texts(row)]
            names = dict(zip(map(str, range(len(texts))), texts, strict=True))
            names |= dict(zip(LETTERS, texts, strict=False))
            names = {label: text for label, text in names.items() if text}
            expected = f"0 to {len(texts) - 1}, or letters from A"
        for text in outputs:
            if text not in names:
                raise ValueError(f"the label {text!r} has no name in --label_names (expected {expected})")
        return [names[text] for text in outputs]


def examples_of(table: Table, templates: Templates, metric: str) -> tuple[Examples, list[tuple[int, str]]]:
    """Returns the examples, and malformed lines with their problems.

    An example is (input, accepted answers separated by tabs), and the options if the templates have some.
    """
    examples, malformed = [], list(table.malformed)
    for number, row in table.rows:
        try:
            source, outputs, options = templates.example(row)
            if problem := answer_problem(outputs[0], metric):
                raise ValueError(problem)
        except ValueError as error:
            malformed.append((number, str(error)))
        else:
            examples.append((source, "\t".join(outputs), *([] if options is None else [tuple(options)])))
    return examples, sorted(malformed)
