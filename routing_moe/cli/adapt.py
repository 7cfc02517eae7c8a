"""Choose or mix adapters of peft by a few labelled rows, or train one, and write a single adapter.

    routing-moe adapt --base Qwen/Qwen2.5-0.5B-Instruct --adapters adapters/sst adapters/boolq me/rte \\
        --rows rows.csv --input "{text}" --output "{label}" --prompt_format chat --output_dir out/reviews
    routing-moe adapt ... --how mix --rank 16 --output_dir out/mixed
    routing-moe adapt ... --how tune --steps 200 --output_dir out/tuned

The candidates are the adapters and the base alone. adapt.json has the loss of the rows along each, with
intervals. What is learned from the rows is judged on folds that it was not learned from.
"""

import logging
from dataclasses import replace
from pathlib import Path

from dataloader.errors import InputError, problem_context
from routing_moe.answering.labelled_rows import labelled_rows
from routing_moe.checkpoints.adapter_places import adapter_folders, check_are_adapters, notes_on_bases
from routing_moe.checkpoints.adapter_texts import texts_of_adapters
from routing_moe.checkpoints.assemble import find_base
from routing_moe.config.adapt import AdaptSettings
from routing_moe.config.assemble import named_places
from routing_moe.config.console import run_command
from routing_moe.config.flags import changed, command_line
from routing_moe.config.shared import FORMAT_FLAGS, given_texts

log = logging.getLogger("routing_moe")


def main(argv: list[str] | None = None) -> int:
    def run(settings: AdaptSettings) -> None:
        settings = replace(settings, task=settings.task or Path(settings.rows).stem)
        rows = "rows", settings.rows, settings.task, settings.input, settings.output, settings.options
        examples, places = labelled_rows(*rows), named_places("adapters", settings.adapters, unnamed=True)
        if brackets := [name for name in places if name.startswith("(")]:
            raise InputError(f"--adapters {brackets[0]}: names in brackets are those of the base and folds")
        with problem_context("--base "):
            base = find_base(settings.base)
        folders = adapter_folders("adapters", places)
        check_are_adapters("adapters", places, folders)
        notes = notes_on_bases("adapters", settings.base, base, folders)
        texts, of_texts = texts_of_adapters(folders, settings.task)
        given = given_texts(settings)
        formats = {name: value for name, value in given.items() if name in FORMAT_FLAGS}
        if wrong := changed(formats, texts or {}, "the training of the adapters"):
            raise InputError(f"{line}; leave the flag out" for line in wrong)
        if of_texts and texts is None and not formats:
            raise InputError(f"{of_texts[-1].removeprefix('note: ')}; give the flags of the rows' format")

        # These import torch, after the checks: it takes seconds.
        from routing_moe.answering.adapt import adapt
        from routing_moe.io.logs import start_logging

        start_logging()
        for note in notes + of_texts:
            log.info("%s", note)
        adapt(settings, examples, base, folders, (texts or {}) | given, command_line(AdaptSettings, argv))

    return run_command(run, AdaptSettings, argv, __doc__, kept)


def kept(settings: AdaptSettings) -> str:
    return f"finished losses are kept in {settings.output_dir}/losses; the same command continues"
