"""A file of answers, which is written as they are made and can be continued.

    answers.jsonl        a line for each text, all with the same keys: {"input": "...", "answer": "...",
                         "score": -0.12, "option_scores": null, "was_cut": false}
    answers.meta.json    what they depend on: task, route and where that comes from, model, texts

A call that was killed is continued by the same call: texts with an answer are not answered again. An
existing file that is not of the same call stays as it is.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path

from dataloader.atomic_files import folder_lock, write_text
from dataloader.checksums import sha256
from dataloader.errors import InputError, problem_context
from dataloader.jsonfile import load_json_object, parse_json, parse_json_object
from routing_moe.answering.chosen import check_answers_file, meta_file
from routing_moe.answering.queries import STDIN, STDOUT, Answer, Query, RoutedTask
from routing_moe.answering.routed import CHUNK, Routed
from routing_moe.config.answer import AnswerSettings
from routing_moe.io.main_process import on_main

ANOTHER = "name another --output_file"


@dataclass
class Written:
    """How many answers a file has. kept: those of an earlier call; cut: those to texts that were cut."""

    answers: int = 0
    kept: int = 0
    cut: int = 0


def write_answers(
    routed: Routed, task: RoutedTask, queries: Iterator[Query], settings: AnswerSettings
) -> Iterator[Written]:
    """Appends the answers to texts to --output_file; yields its numbers before and after each one."""
    written, main = Written(), routed.accelerator.is_main_process
    if settings.inputs == STDIN and routed.accelerator.num_processes > 1:
        raise InputError("--inputs -: several processes cannot share standard input; give a file")
    with ExitStack() as at_exit:
        file = sys.stdout
        if settings.output_file != STDOUT:
            path = Path(settings.output_file)

            def locked_lines() -> list[bytes]:
                lock = folder_lock(path.parent, f"--output_file {path.name} in", f".{path.name}.lock")
                at_exit.enter_context(lock)
                check_answers_file(settings)
                keep_meta(path, described(routed, task, settings))
                return path.read_bytes().split(b"\n")[:-1] if path.exists() else []

            lines = on_main(routed.accelerator, locked_lines)
            written, queries = unanswered(path, lines, queries)
            if main:
                file = at_exit.enter_context(path.open("a", encoding="utf-8", buffering=1))
                file.truncate(sum(len(line) + 1 for line in lines[: written.kept]))
        yield written
        for answer in routed.answers(task, queries, batch_size=settings.predict_batch_size):
            if main:
                print(json.dumps(line_of(answer), ensure_ascii=False), file=file)
            written.answers += 1
            written.cut += answer.was_cut
            yield written


def described(routed: Routed, task: RoutedTask, settings: AnswerSettings) -> dict:
    """Returns the content of the .meta.json file: what the answers depend on. Does not name folders."""
    return {
        "answers": Path(settings.output_file).name,
        "inputs": STDIN if settings.inputs == STDIN else f"sha256 {sha256(settings.inputs)}",
        "task": task.name,
        "route": task.words,
        "seen": task.seen,
        "experts": task.experts,
        "options": list(settings.options),
        "model": routed.start.checksums(),
        "text settings": routed.texts,
    }


def keep_meta(path: Path, about: dict) -> None:
    """Writes the .meta.json of a file of answers. Raises InputError if there is one of another call."""
    meta = meta_file(path)
    if not meta.exists():
        return write_text(meta, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    with problem_context("", f"; {ANOTHER}"):
        saved = load_json_object(meta, "what the answers beside it depend on")
    if changed := [name for name, value in parse_json(json.dumps(about)).items() if saved.get(name) != value]:
        raise InputError(f"{meta} differs from this call in {', '.join(changed)}; {ANOTHER}")


def line_of(answer: Answer) -> dict:
    scores = {name: round(score, 6) for name, score in (answer.option_scores or {}).items()}
    return dataclasses.asdict(answer) | {"score": round(answer.score, 6), "option_scores": scores or None}


def unanswered(path: Path, lines: list[bytes], queries: Iterator[Query]) -> tuple[Written, Iterator[Query]]:
    """Returns the numbers of the answers in the lines of a file, and the texts that have no answer there.

    Unless all texts are answered, answers of a CHUNK that is not complete do not count, because rounding
    depends on which texts are answered together.
    """
    answered, cut = list(islice(queries, len(lines))), []
    for number, (line, query) in enumerate(zip_longest(lines, answered), start=1):
        try:
            fields = parse_json_object(line.decode())
        except ValueError:  # neither UTF-8 nor JSON
            raise InputError(f"{path}:{number} is not a line of a file of answers; {ANOTHER}") from None
        if query is None or fields.get("input") != query.input:
            raise InputError(f"{path}:{number} does not answer text {number} of the inputs; {ANOTHER}")
        cut.append(fields.get("was_cut") is True)
    following = list(islice(queries, 1))
    kept = len(answered) - (len(answered) % CHUNK if following else 0)
    return Written(kept, kept, sum(cut[:kept])), chain(answered[kept:], following, queries)
