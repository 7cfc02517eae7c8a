"""Examples from the rows of a table, by templates such as "question: {q}"."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from string import Formatter

from dataloader.building.sources import Row
from dataloader.building.tables import Table
from dataloader.building.text import LETTERS, clean, lettered
from dataloader.errors import InputError, did_you_mean, in_short
from dataloader.metrics import answer_problem
from dataloader.task_files import row_problem

# Texts of cells that count as empty, as pandas writes them; "Na" and "None" are texts.
NOT_AVAILABLE = ("NaN", "nan", "NA")
_FIELD = re.compile(r"(?P<column>[^\[]+)(?P<keys>(?:\[[^\]]+\])*)")  # {column}, {column[key]}


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

    def problem(self, table: Table) -> str | None:
        """Returns the problem of a column that the table does not have, else None."""
        for field in self.fields:
            if field not in table.columns and column_of(field) not in table.columns:
                hint = did_you_mean(field, table.columns)
                return (
                    f"{self.flag} {self.text!r}: {table.source} has no column {field!r}{hint} "
                    f"(its columns: {in_short(table.columns, 20)})"
                )
        return None

    def texts(self, row: Row) -> list[str]:
        """Returns the text of a row, or one for each element of a column with a list.

        A text with an empty value is "". Raises ValueError for lists of different lengths.
        """
        values = [values_of(row, field) for field in self.fields]
        n = max(map(len, values), default=1)
        if any(len(texts) not in (1, n) for texts in values):
            raise ValueError(f"the lists of {self.text!r} differ in length")
        repeated = [texts * n if len(texts) == 1 else texts for texts in values]
        rows = [[texts[index] for texts in repeated] for index in range(n)]  # one without texts for a word
        return [self._filled(texts) if all(texts) else "" for texts in rows]

    def single_text(self, row: Row) -> str:
        """Returns the text of a row; a list is "(A) first (B) second". Raises ValueError if one is empty."""
        texts = []
        for field in self.fields:
            value = value_of(row, field)
            values = [text for text in map(clean, _flat(value, field)) if text]
            if not values:
                raise ValueError(f"column {field!r} is empty, NaN or NA")
            if len(values) > len(LETTERS):
                raise ValueError(f"column {field!r} has {len(values)} values, at most {len(LETTERS)} fit")
            texts.append(lettered(values).strip() if isinstance(value, list) else values[0])
        return self._filled(texts)

    def _filled(self, texts: list[str]) -> str:
        rest = iter(texts)
        return clean(
            "".join(literal + ("" if field is None else next(rest)) for literal, field in self.parts)
        )


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


def values_of(row: Row, field: str) -> list[str]:
    """Returns the cleaned texts of a field, "" for empty ones; tabs separate several, as in a gym."""
    values = _flat(value_of(row, field), field) or [""]
    return [clean(text) for value in values for text in value.split("\t")]


def _flat(value, field: str) -> list[str]:
    if isinstance(value, list):
        return [text for item in value for text in _flat(item, field)]
    if isinstance(value, dict):
        raise ValueError(
            f"{field!r} is an object; name a key of it: {', '.join(f'{field}[{key}]' for key in value)}"
        )
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return [""]
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas stores a column of integers as floats if one is missing
    return [str(value)]


def texts_of(templates: tuple[Template, ...], row: Row) -> list[str]:
    """Returns the texts of a row that are not empty."""
    return [text for template in templates for text in template.texts(row) if text]


@dataclass(frozen=True)
class Templates:
    """The templates of a task: of its input, of its accepted answers, and of its options, () for none.

    label_names: what --output counts, from 0 or from A; or value=name for each value; () for none.
    """

    input: Template
    output: tuple[Template, ...]
    options: tuple[Template, ...] = ()
    label_names: tuple[Template, ...] = ()

    @property
    def all(self) -> tuple[Template, ...]:
        return (self.input, *self.output, *self.options, *self.label_names)

    def problems(self) -> list[str]:
        """Returns the problems that no table can repair."""
        problems, texts = [], (self.input, *self.output)
        for template in self.all:
            try:
                if not template.fields and template in texts:
                    problems.append(f"{template.flag} {template.text!r} names no column; write {{column}}")
                elif not all(template.fields) and template.fields:
                    problems.append(f"{template.flag} {template.text!r}: {{}} names no column")
            except InputError as error:
                problems += error.problems
        return list(dict.fromkeys(problems))

    @cached_property
    def names_by_value(self) -> dict[str, str]:
        """{value: name} if all label names are written value=name, else {}."""
        words = [clean(template.text) for template in self.label_names if not template.fields]
        pairs = dict(word.split("=", 1) for word in words if "=" in word)
        return pairs if len(pairs) == len(self.label_names) else {}

    def example(self, row: Row) -> tuple[str, list[str], list[str] | None]:
        """Returns (input, accepted answers, options or None). Raises ValueError for a row without them."""
        source = self.input.single_text(row)
        outputs = texts_of(self.output, row)
        if not outputs:
            raise ValueError(f"column {self.output[0].fields[0]!r} is empty, NaN or NA")
        if self.label_names:
            outputs = self._named(outputs, row)
        options = texts_of(self.options, row)
        if problem := row_problem(source, outputs, options if self.options else None):
            raise ValueError(problem)
        return source, list(dict.fromkeys(outputs)), options if self.options else None

    def _named(self, outputs: list[str], row: Row) -> list[str]:
        if names := self.names_by_value:
            unknown = [text for text in outputs if text not in names]
            expected = ", ".join(names)
        else:
            texts = [text for template in self.label_names for text in template.texts(row)]
            numbered = [
                *zip(map(str, range(len(texts))), texts, strict=True),
                *zip(LETTERS, texts, strict=False),
            ]
            names = {label: text for label, text in numbered if text}
            unknown = [text for text in outputs if text not in names]
            expected = f"0 to {len(texts) - 1}, or letters from A"
        if unknown:
            raise ValueError(f"the label {unknown[0]!r} has no name in --label_names (expected {expected})")
        return [names[text] for text in outputs]


def examples_of(table: Table, templates: Templates, metric: str) -> tuple[list[Row], list[tuple[int, str]]]:
    """Returns the examples as rows {"input", "output", "options"}, and malformed lines with their problems.

    output: the accepted answers, separated by tabs.
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
            examples.append({"input": source, "output": "\t".join(outputs), "options": options})
    return examples, sorted(malformed)
