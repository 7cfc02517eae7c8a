"""Answers to texts, appended to a file as they are made. Does not import torch.

    answers.jsonl        a line for each text, all with the same keys: {"input": "...", "answer": "...",
                         "score": -0.12, "option_scores": null, "was_cut": false}
    answers.meta.json    what they depend on: task, route and where that comes from, model, texts

The same call continues after the lines that a killed one wrote. A file of another call stays as it is.
"""

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from dataloader.atomic_files import folder_lock, write_text
from dataloader.building.tables import Kept
from dataloader.checksums import sha256
from dataloader.errors import InputError, problem_context
from dataloader.jsonfile import load_json_object, parse_json, parse_json_object
from dataloader.progress import ProgressBar
from routing_moe.answering.chosen import texts_of
from routing_moe.answering.queries import CHUNK, STDIN, STDOUT, RoutedTask
from routing_moe.checkpoints.find import checksums
from routing_moe.config.answer import AnswerSettings
from routing_moe.io.files import unwritable


def check_answers_file(settings: AnswerSettings) -> None:
    """Raises InputError for an --output_file that would be overwritten or lost."""
    path = Path(settings.output_file)
    if settings.output_file == STDOUT:
        return
    for name in ("inputs", "like", "examples"):
        if getattr(settings, name) and Path(getattr(settings, name)).resolve() == path.resolve():
            raise InputError(f"--output_file {path} is --{name}; name another file")
    if path.exists() and (settings.inputs == STDIN or not meta_file(path).exists()):
        why = "and standard input has other texts" if settings.inputs == STDIN else "and is of another call"
        raise InputError(f"--output_file {path} exists already, {why}; name another file")
    if not path.parent.is_dir():
        raise InputError(f"--output_file {path}: no such folder {path.parent}")
    if reason := unwritable(path.parent):
        raise InputError(f"--output_file {reason}")


def meta_file(path: Path) -> Path:
    """Returns the file beside a file of answers that says what they depend on."""
    return path.with_name(f"{path.stem}.meta.json")


def write_answers(
    routed, task: RoutedTask, settings: AnswerSettings, total: int | None
) -> tuple[int, int, int]:
    """Writes the answers to --inputs. Returns their number, how many others were kept, how many texts cut.

    total: the number of texts, None for standard input.
    """
    kept = made = cut = 0
    template, queries = texts_of(settings, "inputs")
    with ExitStack() as stack:
        file, path = sys.stdout, Path(settings.output_file)
        if settings.output_file != STDOUT:
            lock = folder_lock(path.parent, f"--output_file {path.name} in", f".{path.name}.lock")
            stack.enter_context(lock)
            check_answers_file(settings)
            keep_meta(routed, task, settings, template)
            file = stack.enter_context(path.open("a", encoding="utf-8", buffering=1))
            lines = finished_lines(settings, total)
            kept = len(lines)
            file.truncate(sum(len(line) + 1 for line in lines))
        bar = ProgressBar(total=total, initial=kept, desc="answering", unit="text")
        stack.enter_context(bar)
        queries = islice(queries, kept, None)
        for answer in routed.answers(task, queries, batch_size=settings.predict_batch_size):
            options = {name: round(score, 6) for name, score in (answer.option_scores or {}).items()}
            fields = asdict(answer) | {"score": round(answer.score, 6), "option_scores": options or None}
            print(json.dumps(fields, ensure_ascii=False), file=file)
            made, cut = made + 1, cut + answer.was_cut
            bar.update()
    return made, kept, cut


def finished_lines(settings: AnswerSettings, total: int | None) -> list[bytes]:
    """Returns the lines of the output file that stay. Raises InputError for lines of another origin."""
    path = settings.output_file
    lines = Path(path).read_bytes().split(b"\n")[:-1]  # the last was begun
    if lines and len(lines) > total:
        raise InputError(f"{path} has {len(lines)} lines, but --inputs {total} texts; name another file")
    for number, (line, query) in enumerate(zip(lines, texts_of(settings, "inputs")[1], strict=False), 1):
        try:
            is_answer = parse_json_object(line.decode()).get("input") == query.input
        except ValueError:
            is_answer = False
        if not is_answer:
            raise InputError(f"{path}:{number} is not the answer to that text of --inputs; name another file")
    # Rounding depends on which texts are answered together: only complete chunks count.
    return lines if len(lines) == total else lines[: len(lines) - len(lines) % CHUNK]


def keep_meta(routed, task: RoutedTask, settings: AnswerSettings, template: Kept | None) -> None:
    """Writes the .meta.json of a file of answers. Raises InputError if there is one of another call."""
    about = {  # which names no folders
        "answers": Path(settings.output_file).name,
        "inputs": STDIN if settings.inputs == STDIN else f"sha256 {sha256(settings.inputs)}",
        "task": task.name,
        "route": task.description,
        "seen": task.seen,
        "experts": task.experts,
        "template": template,
        "options": list(settings.options),
        "model": checksums(routed.start),
        "text settings": routed.texts,
        "mixed_precision": routed.accelerator.mixed_precision,
    }
    meta, another = meta_file(Path(settings.output_file)), "name another --output_file"
    if not meta.exists():
        return write_text(meta, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    with problem_context("", f"; {another}"):
        saved = load_json_object(meta, "what the answers beside it depend on")
    now = parse_json(json.dumps(about)) | {"seen": saved.get("seen")}  # follows from the model
    if changed := [name for name, value in now.items() if saved.get(name) != value]:
        raise InputError(f"{meta} differs from this call in {', '.join(changed)}; {another}")
