"""Write the plain model of a task's route, which needs transformers alone.

    routing-moe export --checkpoint models/moe --task boolq --output_dir out/bart
    routing-moe export --checkpoint models/moe --task my_reviews --like new.txt --argmax --output_dir out/bart
    routing-moe export --checkpoint models/multitask_bart --output_dir out/bart    one expert: the same model
    routing-moe export --checkpoint models/lora --task boolq --as adapter --output_dir out/boolq
    routing-moe export --checkpoint models/llm --task boolq --as gguf --rank 16 --output_dir out/llama_cpp
    routing-moe export --checkpoint models/lora --adapters --output_dir out/adapters

A one-hot route has an equal plain model, and so has any route if parameters are mixed (--expert_mixing
parameters) or experts are of low rank (--expert_kind lora). Another route mixes the outputs of experts;
--argmax takes the expert of largest weight in each layer. A route of low-rank experts is also one adapter of
peft (--as adapter) or llama.cpp (--as gguf), and so is each expert (--adapters).
"""

import logging

from dataloader.errors import InputError, in_short
from routing_moe.answering.chosen import check_flags, chosen_task
from routing_moe.checkpoints.find import find_model
from routing_moe.config.answer import ExportSettings
from routing_moe.config.console import run_command
from routing_moe.config.shared import given_texts
from routing_moe.io.files import new_folder_problems

log = logging.getLogger("routing_moe")


def main(argv: list[str] | None = None) -> int:
    return run_command(run, ExportSettings, argv, __doc__)


def run(settings: ExportSettings) -> None:
    check_flags(settings)
    if problems := new_folder_problems("output_dir", settings.output_dir):
        raise InputError(problems)
    find_model(settings.checkpoint, settings.checkpoint_name)

    # These import torch, after the checks: it takes seconds.
    from routing_moe.answering.export import export_adapter, export_adapters
    from routing_moe.answering.routed import Routed
    from routing_moe.io.logs import start_logging
    from routing_moe.model.gguf_adapter import architecture_of

    start_logging()
    model = settings.checkpoint, settings.checkpoint_name, settings.mixed_precision
    routed, how = Routed.load(*model, **given_texts(settings)), (settings.rank, settings.as_ == "gguf")
    if settings.as_ == "gguf":
        architecture_of(routed.model.config)
    if settings.adapters:
        for name, tasks in export_adapters(routed, settings.output_dir, *how).items():
            log.info("%s: the expert of %s", settings.output_dir / name, in_short(tasks) or "no task")
        return
    task = chosen_task(routed, settings)
    log.info("%s", task)
    if settings.as_ == "plain":
        routed.export(task, settings.output_dir, settings.argmax)
    else:
        export_adapter(routed, task, settings.output_dir, *how)
    log.info("wrote %s", settings.output_dir)
