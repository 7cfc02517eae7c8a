"""Merge the weights of runs, or the experts of a mixture, into one model: their mean, or by TIES, DARE, ...

    routing-moe average --runs models/bart/seed42 models/bart/seed43 --output_dir models/soup
    routing-moe average --runs out/rte out/boolq --merger ties --base facebook/bart-base --density 0.2 \\
        --output_dir models/ties
    routing-moe average --runs models/task_random --output_dir models/merged     the mean of its experts
    routing-moe finetune --do_train --do_predict --checkpoint models/soup --task_dir data/gym/ag_news \\
        --output_dir out/ag_news

The runs should start from the same weights: the mean of runs from different random weights is not useful.
"""

from routing_moe.checkpoints.assemble import AVERAGED_FILE, average, write
from routing_moe.config.assemble import AverageSettings
from routing_moe.config.console import run_command
from routing_moe.config.flags import command_line
from routing_moe.io.logs import start_logging


def main(argv: list[str] | None = None) -> int:
    def run(settings: AverageSettings) -> None:
        model, models, notes = average(settings)
        start_logging()
        write(settings, model, models, AVERAGED_FILE, command_line(AverageSettings, argv))
        merged = f"{len(settings.runs)} models" if settings.runs[1:] else "the experts"
        print("\n".join([*notes, f"{settings.merger} of {merged} written to {settings.output_dir}"]))

    return run_command(run, AverageSettings, argv, __doc__)
