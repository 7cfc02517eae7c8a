"""Make a mixture of models that were trained separately, adapters of peft or fine-tuned BARTs.

    routing-moe assemble --base facebook/bart-base --experts sst=adapters/sst boolq=adapters/boolq \\
        --output_dir models/assembled
    routing-moe assemble --base facebook/bart-base --experts sst=out/sst/models/sst_16_100_best \\
        boolq=out/boolq/models/boolq_16_100_best --train_dir data/gym --output_dir models/assembled
    routing-moe answer --checkpoint models/assembled --task sst --inputs new.txt

Each task has a one-hot route to its own expert: a low-rank update of the base if all models are adapters,
else complete layers. New texts get the route of the task with the most similar texts, which --train_dir makes
known.
"""

import sys

from dataloader.atomic_files import unfinished_folder
from dataloader.errors import in_short
from dataloader.gym import Gym
from routing_moe.checkpoints.assemble import assemble, check_assembly, write
from routing_moe.cli.console import run_command
from routing_moe.config.assemble import AssembleSettings
from routing_moe.config.flags import command_line
from routing_moe.io.logs import start_logging


def main(argv: list[str] | None = None) -> int:
    def run(settings: AssembleSettings) -> None:
        base, barts, adapters = check_assembly(settings)
        start_logging()
        model, notes = assemble(settings, base, barts, adapters)
        sources = {"base": base} | {f"experts/{name}": source for name, source in (barts | adapters).items()}
        settings.output_dir.parent.mkdir(parents=True, exist_ok=True)
        with unfinished_folder(settings.output_dir) as unfinished:
            folder = unfinished / "assembled"
            write(settings, model, sources, folder, command_line(AssembleSettings, argv))
            if settings.train_dir:
                keep_texts(folder, settings.train_dir, list(settings.places))
            folder.rename(settings.output_dir)
        print("\n".join([f"{model.config.experts_described}: {in_short(list(settings.places))}", *notes]))
        print(f"written to {settings.output_dir}")

    return run_command(run, AssembleSettings, argv, __doc__)


def keep_texts(folder, train_dir: str, names: list[str]) -> None:
    """Writes the text vectors of the tasks to the checkpoint, which makes them."""
    from routing_moe.answering.routed import Routed
    from routing_moe.task_choice.texts import TextsOfModel, TextSource

    routed = Routed.load(folder)
    source = TextSource((Gym(train_dir),), routed.text_format)
    TextsOfModel(source, routed.model, routed.tokenizer, routed.start, keep=True).candidates(names)


if __name__ == "__main__":
    sys.exit(main())
