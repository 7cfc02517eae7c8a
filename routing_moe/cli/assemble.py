"""Make a mixture of models that were trained separately, adapters of peft or fine-tuned BARTs.

    routing-moe assemble --base facebook/bart-base --experts sst=adapters/sst boolq=adapters/boolq \\
        --output_dir models/assembled
    routing-moe assemble --base facebook/bart-base --experts sst=out/sst/models/sst_16_100_best \\
        boolq=out/boolq/models/boolq_16_100_best --train_dir data/gym --output_dir models/assembled
    routing-moe answer --checkpoint models/assembled --task sst --inputs new.txt
    routing-moe answer --checkpoint models/assembled --task my_reviews --like new.txt --inputs new.txt

Each task has a one-hot route to its own expert. New texts get the route of the task with the most similar
texts, which --train_dir makes known.
"""

import sys
from pathlib import Path

from dataloader.atomic_files import unfinished_folder
from dataloader.errors import in_short
from dataloader.gym import Gym
from routing_moe.checkpoints.assemble import Sources, assemble, check_assembly, write_assembled
from routing_moe.cli.console import run_command
from routing_moe.config.assemble import AssembleSettings
from routing_moe.config.flags import command_line
from routing_moe.io.logs import start_logging


def main(argv: list[str] | None = None) -> int:
    def run(settings: AssembleSettings) -> None:
        sources = check_assembly(settings)
        start_logging()
        model, notes = assemble(settings, sources)
        settings.output_dir.parent.mkdir(parents=True, exist_ok=True)
        with unfinished_folder(settings.output_dir) as unfinished:
            folder = unfinished / "assembled"
            write_assembled(settings, sources, model, folder, command_line(AssembleSettings, argv))
            if settings.train_dir:  # text vectors are made by the checkpoint that keeps them
                notes.append(keep_texts(folder, settings.train_dir, list(sources.experts)))
            folder.rename(settings.output_dir)
        print("\n".join([described(model, settings, sources), *notes]))
        print(f"written to {settings.output_dir}")

    return run_command(run, AssembleSettings, argv, __doc__)


def described(model, settings: AssembleSettings, sources: Sources) -> str:
    config = model.config
    kind = "complete layers"
    if config.has_lora:
        kind = f"rank {config.lora_rank}, {config.lora_targets} linear maps of {settings.base}"
    return f"{config.num_experts} experts ({kind}): {in_short(list(sources.experts))}"


def keep_texts(folder: Path, train_dir: str, names: list[str]) -> str:
    """Writes the text vectors of the tasks to the checkpoint's folder; returns what was written, in words."""
    from routing_moe.answering.routed import Routed
    from routing_moe.task_choice.texts import TEXTS_FILE, TextsOfModel, TextSource

    routed = Routed.load(folder)
    source = TextSource((Gym(train_dir),), routed.text_format)
    TextsOfModel(source, routed.model, routed.tokenizer, routed.start, keep=True).candidates(names)
    return f"text vectors of {len(names)} tasks in {TEXTS_FILE}"


if __name__ == "__main__":
    sys.exit(main())
