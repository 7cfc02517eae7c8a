"""Answer new texts with a trained model, along the route of a task.

    routing-moe answer --checkpoint models/moe --task boolq --inputs new.txt --output_file answers.jsonl
    routing-moe answer --checkpoint models/moe --task my_reviews --like new.txt --inputs new.txt \\
        --options positive negative
    routing-moe answer --checkpoint models/own --task my_reviews --inputs new.csv --output_file answers.jsonl
    routing-moe answer --checkpoint models/moe --examples my_task_16_100_train.tsv --inputs -
"""

import logging
import time
from pathlib import Path

from dataloader.errors import InputError, problem_context
from routing_moe.answering.answers_file import check_answers_file, write_answers
from routing_moe.answering.chosen import check_flags, chosen_task, kept_template, texts_of
from routing_moe.answering.queries import STDIN, STDOUT
from routing_moe.config.answer import AnswerSettings
from routing_moe.config.console import run_command
from routing_moe.config.shared import given_texts

log = logging.getLogger("routing_moe")


def main(argv: list[str] | None = None) -> int:
    return run_command(run, AnswerSettings, argv, __doc__, kept)


def run(settings: AnswerSettings) -> None:
    total = None
    check_flags(settings)
    check_answers_file(settings)
    template, queries = texts_of(settings, "inputs")
    if Path(settings.inputs).is_fifo():
        raise InputError(
            f"--inputs {settings.inputs} is a pipe, which can be read once; pipe into --inputs -"
        )
    if settings.inputs != STDIN:
        with problem_context("--inputs "):
            total = sum(1 for _ in queries)
        if total == 0:
            raise InputError(f"--inputs {settings.inputs} has no texts")

    # These import torch, after the checks: it takes seconds.
    from routing_moe.answering.routed import Routed
    from routing_moe.io.logs import start_logging

    start_logging()
    model = settings.checkpoint, settings.checkpoint_name, settings.mixed_precision
    routed = Routed.load(*model, **given_texts(settings))
    task = chosen_task(routed, settings)
    log.info("%s", task)
    if template is None and (kept := kept_template(settings)):
        log.info("note: texts are answered as they are; inputs of the training were %r", kept)
    started = time.monotonic()
    made, earlier, cut = write_answers(routed, task, settings, total)
    seconds = time.monotonic() - started
    log.info("answered %d texts in %.1f s (%.1f per second)", made, seconds, made / seconds)
    if earlier:
        log.info("%d texts were answered already", earlier)
    if cut:
        log.info("%d of the texts cut to %d tokens", cut, routed.text_format.max_input_length)


def kept(settings: AnswerSettings) -> str:
    if settings.output_file == STDOUT or not Path(settings.output_file).exists():
        return "nothing was written to a file"
    return f"the answers in {settings.output_file} are kept; the same command continues"
