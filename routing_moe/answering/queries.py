"""Texts to answer, tasks with their routes, and answers. Does not import torch.

new.txt      a text a line
new.tsv      a text a line, up to the first tab: files of a gym can be given
new.jsonl    {"input": "...", "options": ["...", "..."]} a line; options may be missing
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dataloader.errors import InputError
from dataloader.jsonfile import parse_json_object
from routing_moe.model.task_vectors import NOTHING
from routing_moe.task_choice.choice import TaskChoice

STDIN = STDOUT = "-"
HALF_OF_A_PAIR = re.compile("[\ud800-\udfff]")  # in Python, but in no file: of arguments, or Python callers


@dataclass(frozen=True)
class Query:
    """A text to answer. options: the answers to choose from, () to generate one."""

    input: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """The answer to a text. score: mean log-probability of its tokens, in nats, as of `option_ranking`.

    option_scores: those of all options, if there are any. was_cut: whether the text is longer than the limit.
    """

    input: str
    answer: str
    score: float
    option_scores: dict[str, float] | None = None
    was_cut: bool = False


@dataclass(frozen=True, eq=False)
class RoutedTask:
    """A task with its route, a tensor (L, E), and where it comes from.

    choice: None for a plain BART. depths: numbers of rows of encoder and decoder.
    """

    name: str
    route_LE: object
    choice: TaskChoice | None
    depths: tuple[int, int]

    @property
    def words(self) -> str:
        """Where the route comes from."""
        return self.choice.words if self.choice else "none: one expert"

    @property
    def seen(self) -> str:
        """What the choice of the route has seen of the task."""
        return self.choice.seen if self.choice else NOTHING

    @property
    def experts(self) -> dict[str, list]:
        """{"encoder": [...], "decoder": [...]}: the expert of each layer, or the weights of all experts."""
        is_one_hot = bool(((self.route_LE == 0) | (self.route_LE == 1)).all())
        rows = self.route_LE.argmax(dim=1) if is_one_hot else self.route_LE.cpu().double().round(decimals=4)
        return {"encoder": rows[: self.depths[0]].tolist(), "decoder": rows[self.depths[0] :].tolist()}

    def __str__(self) -> str:
        experts = "; ".join(f"{side} {' '.join(map(str, rows))}" for side, rows in self.experts.items())
        return f"{self.name}: {self.words}; has seen of the task: {self.seen}\n  experts: {experts}"


def text_problem(text: str) -> str | None:
    """Returns what is wrong with a text, or None."""
    if HALF_OF_A_PAIR.search(text):
        return "holds half of a surrogate pair, which is not a character"
    return None if text.strip() else "is empty"


def query_problem(query: Query) -> str | None:
    """Returns what is wrong with a text or its options, or None."""
    if problem := text_problem(query.input):
        return f"the text {problem}"
    if problems := list(filter(None, map(text_problem, query.options))):
        return f"an option {problems[0]}"
    if len(set(query.options)) == 1:
        return f"{query.options[0]!r} is the only option; give at least two different ones, or none"
    return None


def read_queries(source: str, options: tuple[str, ...] = ()) -> Iterator[Query]:
    """Yields the texts of a file, or of standard input. options: for texts that have none of their own."""
    parse = {".tsv": _of_tsv, ".jsonl": _of_json}.get(Path(source).suffix, Query)
    for number, line in enumerate(_lines(source), start=1):
        try:
            query = parse(line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n"))
        except UnicodeDecodeError as error:
            raise InputError(
                f"{source}:{number}: byte {error.start + 1} of the line is not UTF-8; give a text file"
            ) from None
        except ValueError as error:
            raise InputError(f"{source}:{number}: {error}") from None
        query = query if query.options else Query(query.input, options)
        if problem := query_problem(query):
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
    fields = parse_json_object(line)
    text, options = fields.get("input"), fields.get("options") or []
    if not isinstance(options, list) or not all(isinstance(value, str) for value in (text, *options)):
        raise ValueError('expected {"input": text, "options": [text, ...]}')
    return Query(text, tuple(options))
