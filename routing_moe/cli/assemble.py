"""Make a mixture of models that were trained separately, adapters of peft or fine-tuned BARTs.

    routing-moe assemble --base facebook/bart-base --experts sst=adapters/sst boolq=adapters/boolq \\
        --output_dir models/assembled
    routing-moe answer --checkpoint models/assembled --task sst --inputs new.txt

Each task has a one-hot route to its own expert: a low-rank update of the base, or of BARTs, complete layers.
"""

from dataloader.errors import in_short
from routing_moe.checkpoints.assemble import assemble, made_of, models_to_assemble, write
from routing_moe.checkpoints.merge_stages import check_made_of
from routing_moe.config.assemble import ASSEMBLED_FILE, AssembleSettings
from routing_moe.config.console import run_command
from routing_moe.config.flags import command_line
from routing_moe.config.shared import given_texts
from routing_moe.io.logs import start_logging


def main(argv: list[str] | None = None) -> int:
    def run(settings: AssembleSettings) -> None:
        sources = models_to_assemble(settings)
        if settings.keeps:
            now = made_of(sources) | given_texts(settings)
            return check_made_of(settings.output_dir / ASSEMBLED_FILE, now)
        model, notes = assemble(settings, sources)
        start_logging()
        write(settings, model, sources, ASSEMBLED_FILE, command_line(AssembleSettings, argv))
        print("\n".join([f"{model.config.experts_described}: {in_short(list(settings.places))}", *notes]))
        print(f"written to {settings.output_dir}")

    return run_command(run, AssembleSettings, argv, __doc__)
