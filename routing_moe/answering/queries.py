"""Texts to answer, tasks with their routes, and answers. Does not import torch.

new.txt      a text a line
new.csv      a table with columns; also .tsv, .jsonl and .parquet: `tables.py`
new.tsv      a text a line, up to the first tab: files of a gym can be given
new.jsonl    {"input": "...", "options": ["...", "..."]} a line; options may be missing; of a chat, as in a
             gym, or {"messages": [{"role": "user", "content": "..."}, ...]}
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from dataloader.errors import InputError
from dataloader.jsonfile import parse_json_object
from dataloader.task_files import Turns, checked_turns, last_input

STDIN = STDOUT = "-"
CHUNK = 512  # texts that are tokenized and sorted by length together


@dataclass(frozen=True)
class Query:
    """A text to answer. options: the answers to choose from, () to generate one. before: turns of a chat."""

    input: str
    options: tuple[str, ...] = ()
    before: Turns = ()

    def check(self) -> None:
        """Raises ValueError for empty texts and what is not a text, and for a single option."""
        if isinstance(self.options, str):
            raise ValueError(f"options must be a list of texts, not the text {self.options!r}")
        if others := [text for text in (self.input, *self.options) if not isinstance(text, str)]:
            raise ValueError(f"{others[0]!r} is not a text")
        if not self.input.strip():
            raise ValueError("the text is empty")
        if not all(option.strip() for option in self.options):
            raise ValueError("an option is empty")
        if len(set(self.options)) == 1:
            only = repr(self.options[0])
            raise ValueError(f"{only} is the only option; give at least two different ones, or none")


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
    """A task with its route, a tensor (L, E), where it comes from, and what that has seen of the task.

    The route is None if each text has its own. encoder_rows: the first rows of a route, which are those of
    the encoder. model: the place of the model. texts: inputs of the task that are at hand.
    """

    name: str
    route_LE: object
    description: str
    seen: str
    encoder_rows: int
    model: str
    texts: Sequence[str] = ()

    @property
    def experts(self) -> dict[str, list]:
        """{"encoder": [...], "decoder": [...]}: the expert of each layer, or the weights of all experts.

        {"layers": [...]} without an encoder; {} if each text has a route of its own.
        """
        if self.route_LE is None:
            return {}
        is_one_hot = bool(((self.route_LE == 0) | (self.route_LE == 1)).all())
        rows = self.route_LE.argmax(dim=1) if is_one_hot else self.route_LE.cpu().double().round(decimals=4)
        encoder, decoder = rows[: self.encoder_rows], rows[self.encoder_rows :]
        if not self.encoder_rows:
            return {"layers": decoder.tolist()}
        return {"encoder": encoder.tolist(), "decoder": decoder.tolist()}

    def __str__(self) -> str:
        experts = "; ".join(f"{side} {' '.join(map(str, rows))}" for side, rows in self.experts.items())
        found = f"{self.name}: {self.description}; has seen of the task: {self.seen}"
        return f"{found}\n  experts: {experts}" if experts else found


def read_queries(source: str, options: tuple[str, ...] = ()) -> Iterator[Query]:
    """Yields the texts of a file, or of standard input. options: for texts that have none of their own."""
    kind = Path(source).suffix.lower()
    try:
        with nullcontext(sys.stdin.buffer) if source == STDIN else open(source, "rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield _query_of(line.decode("utf-8-sig").rstrip("\r\n"), kind, options)
                except UnicodeDecodeError as error:
                    problem = f"byte {error.start + 1} of the line is not UTF-8; give a text file"
                    raise InputError(f"{source}:{number}: {problem}") from None
                except ValueError as error:
                    raise InputError(f"{source}:{number}: {error}") from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from None


def _query_of(line: str, kind: str, options: tuple[str, ...]) -> Query:
    """Returns the query of a line. Raises ValueError. kind: .tsv, .jsonl, or another for a text a line."""
    text, before = line.split("\t", 1)[0] if kind == ".tsv" else line, ()
    if kind == ".jsonl":
        fields = parse_json_object(line)
        text = fields.get("input")
        before = checked_turns(fields.get("before") or [], "before", are_before=True)
        if "messages" in fields:
            text, before = last_input(checked_turns(fields["messages"], "messages"))
        offered = fields.get("options") or list(options)
        if not isinstance(offered, list) or not all(isinstance(value, str) for value in (text, *offered)):
            raise ValueError('expected {"input": text, "options": [text, ...]}')
        options = tuple(offered)
    query = Query(text, options, before)
    query.check()
    return query
