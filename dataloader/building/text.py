"""Pieces of templates: cleaning of white space, label words, answer options."""

import re
from collections.abc import Callable, Iterable

from dataloader.building.recipe import Row

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def clean(text: str) -> str:
    """Returns the text on one line: outer white space removed, each run of inner white space one space.

    CrossFit's scripts also replace the two characters "\\n", but not in the published tweet_eval-emotion.
    """
    return re.sub(r"\s+", " ", text.strip())


def no_line_feeds(text: str) -> str:
    """Returns the text with each line feed replaced by a space."""
    return text.replace("\n", " ")


def no_escaped_line_feeds(text: str) -> str:
    """Returns the text with each escaped line feed, the two characters "\\n", replaced by a space."""
    return text.replace("\\n", " ")


def no_breaks(text: str) -> str:
    """Returns the text with each line feed, carriage return and tab replaced by a space."""
    return re.sub(r"[\n\r\t]", " ", text)


def word(column: str, *words: str) -> Callable[[Row], str]:
    """Returns a function that gives the label word of a row; the column holds its index."""
    return lambda row: words[label_index(row[column], len(words))]


def label_index(value: int | bool, n_labels: int) -> int:
    """Returns a label as an index. Raises ValueError unless it is one of 0 ... n_labels - 1."""
    index = int(value)
    if index != value or not 0 <= index < n_labels:
        raise ValueError(f"the label {value!r} is not one of 0 to {n_labels - 1}")
    return index


def columns(*names: str) -> Callable[[Row], list[str]]:
    """Returns a function that gives the values of several columns of a row."""
    return lambda row: [row[name] for name in names]


def choice(options: list[str], index: int | str) -> str:
    """Returns the option with an index, which may be text. Raises ValueError if there is no such option."""
    return options[label_index(int(index), len(options))]


def choice_by_letter(options: list[str], letter: str) -> str:
    """Returns the option with the letter A, B, ... Raises ValueError or IndexError if there is none."""
    return options[LETTERS.index(letter)]


def lettered(options: Iterable[str]) -> str:
    """Returns " (A) first option (B) second option", with a leading space."""
    return "".join(f" ({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False))


def labelled(choices: dict[str, list[str]]) -> str:
    """Returns " (1) first option (2) second option" from {"label": ["1", "2"], "text": [...]}."""
    pairs = zip(choices["label"], choices["text"], strict=True)
    return "".join(f" ({label}) {option}" for label, option in pairs)


def labelled_answer(row: Row) -> str:
    """Returns the text of the choice whose label is in the column "answerKey"."""
    return row["choices"]["text"][row["choices"]["label"].index(row["answerKey"])]


def premise_and_hypothesis(row: Row) -> str:
    """Returns the two sentences of a row without line feeds, as the input of a task of inference."""
    return f"premise: {no_line_feeds(row['premise'])} [SEP] hypothesis: {no_line_feeds(row['hypothesis'])}"


def tabs(answers: Iterable[str]) -> str:
    """Returns several accepted answers as they stand in a line."""
    return "\t".join(answers)
