"""A file of answers, which is written as they are made and can be continued.

    answers.jsonl    the task, its route and where that comes from; then a line for each text:
                     {"input": "...", "answer": "...", "score": -0.12}

A call that was killed is continued by the same call: texts with an answer are not answered again.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path

from dataloader.errors import InputError
from routing_moe.answering.queries import STDOUT, Query
from routing_moe.answering.routed import CHUNK, Routed
from routing_moe.answering.tasks import Answer, RoutedTask


@dataclass
class Written:
    """How many answers a file has. kept: those of an earlier call; cut: those to texts that were cut."""

    answers: int = 0
    kept: int = 0
    cut: int = 0


def write_answers(
    routed: Routed,
    task: RoutedTask,
    queries: Iterator[Query],
    options: tuple[str, ...],
    path: str,
    **decoding,
) -> Iterator[Written]:
    """Answers texts and appends the answers to a file; yields its numbers before and after each answer.

    Texts that the file has an answer to are not answered again. Raises InputError if it has answers of
    another task, model or text.
    """
    first, written, is_new = header(routed, task, options), Written(), True
    with ExitStack() as at_exit:
        file = sys.stdout
        if path != STDOUT:
            if Path(path).exists():
                written, queries = _continue(Path(path), first, queries)
            file = at_exit.enter_context(open(path, "a", encoding="utf-8", buffering=1))
            is_new = file.tell() == 0
        yield written
        for found in routed.answers(task, queries, **decoding):
            if is_new and not written.answers:
                print(_json(first), file=file)
            print(_json(row(found)), file=file)
            written.answers += 1
            written.cut += found.was_cut
            yield written


def header(routed: Routed, task: RoutedTask, options: tuple[str, ...]) -> dict:
    """Returns the first line of a file of answers: what the answers depend on, besides the texts."""
    return {
        "task": task.name,
        "route": task.words,
        "seen": task.seen,
        "experts": task.experts,
        "options": list(options),
        "model": routed.start.checksums(),
        "text settings": routed.texts,
    }


def row(found: Answer) -> dict:
    fields = {"input": found.input, "answer": found.answer, "score": round(found.score, 6)}
    if found.option_scores:
        fields["option_scores"] = {name: round(score, 6) for name, score in found.option_scores.items()}
    return fields | ({"was_cut": True} if found.was_cut else {})


def _continue(path: Path, first: dict, queries: Iterator[Query]) -> tuple[Written, Iterator[Query]]:
    """Returns the numbers of a file of answers, and the texts that it has no answer to.

    Removes a line that was only partly written. Unless all texts are answered, it also removes the answers
    of a CHUNK that is not complete, because rounding depends on which texts are answered together.
    """
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline was only partly written
    rows = [_fields(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]
    changed = [name for name in first if rows and rows[0].get(name) != json.loads(_json(first[name]))]
    if changed:
        raise InputError(
            f"{path}: the answers there differ from this call in {', '.join(changed)}; name another "
            "--output_file"
        )
    answered = list(islice(queries, len(rows[1:])))
    for number, (fields, query) in enumerate(zip_longest(rows[1:], answered), start=1):
        options = set(fields.get("option_scores", ()))
        if query is None or (fields.get("input"), options) != (query.input, set(query.options)):
            raise InputError(
                f"{path}:{number + 1} does not answer text {number} of the inputs; name another --output_file"
            )
    following = list(islice(queries, 1))
    kept = len(answered) - (len(answered) % CHUNK if following else 0)
    with path.open("r+b") as file:
        file.truncate(sum(len(line) + 1 for line in lines[: 1 + kept]))
    cut = sum(fields.get("was_cut", False) for fields in rows[1 : 1 + kept])
    return Written(kept, kept, cut), chain(answered[kept:], following, queries)


def _fields(line: bytes, where: str) -> dict:
    try:
        fields = json.loads(line)
    except ValueError:  # neither JSON nor UTF-8
        fields = None
    if not isinstance(fields, dict):
        raise InputError(f"{where}: not a line of a file of answers; name another --output_file")
    return fields


def _json(fields) -> str:
    return json.dumps(fields, ensure_ascii=False)
