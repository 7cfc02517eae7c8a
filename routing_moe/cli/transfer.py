"""Which tasks help each other: each task's loss along the experts of the others, and groups of tasks.

    routing-moe train ... --task_routes tasks --expert_kind lora --shared_base --output_dir models/tasks
    routing-moe transfer models/tasks      # writes tables, groups and a picture to models/tasks/transfer
    routing-moe train ... --task_routes models/tasks/transfer/groups.json --output_dir models/groups

losses.csv has the loss of each task's rows along each expert, in nats per row; transfer.png the similarities
of tasks that follow. Losses are kept expert by expert; the same command continues an interrupted one.
"""

import logging
import sys
from contextlib import ExitStack
from pathlib import Path

from dataloader.errors import InputError, Problems
from routing_moe.checkpoints.find import mixture_to_score
from routing_moe.cli.console import reporting_errors
from routing_moe.config.flags import flag_problems, parse
from routing_moe.config.transfer import TransferSettings, transfer_settings
from routing_moe.io.files import unwritable
from routing_moe.task_choice.contested import Contested
from routing_moe.training.checks import check_inputs

log = logging.getLogger("routing_moe")


def main(argv: list[str] | None = None) -> int:
    values, started = parse(TransferSettings, argv, __doc__), []
    with reporting_errors(lambda: what_is_kept(*started)) as result:
        run(transfer_settings(values), started)
    return result.exit_code


def run(settings: TransferSettings, started: list[Path]) -> None:
    problems = Problems(flag_problems(settings))
    if problem := unwritable(settings.output_dir):
        problems.append(f"--output_dir {problem}")
    contested = problems.of(Contested.load, settings.run)
    few = contested is not None and contested.are_few
    if not few:
        problems.of(mixture_to_score, settings.prediction.start)
    if problems:
        raise InputError(problems)
    if few:
        one_group(settings, contested)
    else:
        compare(settings, contested, started)


def one_group(settings: TransferSettings, contested: Contested) -> None:
    from routing_moe.analysis.transfer import summary_of, write_groups

    groups = dict.fromkeys(contested.rows, 0)
    write_groups(settings.output_dir, groups, summary_of(contested) | {"groups": 1})
    print(f"{contested.described()}; {settings.output_dir} has one group")


def compare(settings: TransferSettings, contested: Contested | None, started: list[Path]) -> None:
    inputs = check_inputs(settings.prediction)
    # Torch is imported here, after the checks: it takes seconds.
    from routing_moe.analysis.transfer import TransferJob
    from routing_moe.io.accelerator import make_accelerator
    from routing_moe.io.logs import start_logging
    from routing_moe.io.main_process import main_process_lock
    from routing_moe.plots.clustermap import plot_clustered
    from routing_moe.plots.style import HeatScale

    accelerator = make_accelerator(settings.prediction.mixed_precision)
    with ExitStack() as at_exit:
        at_exit.callback(accelerator.end_training)
        start_logging(accelerator.is_main_process)
        job = TransferJob(settings, inputs, contested, accelerator)
        at_exit.enter_context(main_process_lock(accelerator, settings.output_dir))
        started.append(settings.output_dir)
        found = job.run()
        if accelerator.is_main_process:
            found.write(settings.output_dir, list(inputs.split.train))
            if len(found.columns) > 2:
                path, scale = settings.output_dir / "transfer.png", HeatScale("mutual gain")
                plot_clustered(found.affinity_MM, found.columns, inputs.ontology, path, scale)
            log.info(
                "%d tasks, %d groups (clusters %d, silhouette %.3f, advantage %.3f nats): %s",
                len(found.tasks), found.summary["groups"], found.summary["clusters"],
                found.summary["silhouette"], found.summary["advantage"], settings.output_dir,
            )  # fmt: skip


def what_is_kept(folder: Path | None = None) -> str:
    if folder is None:
        return "nothing was started"
    return f"finished losses are kept in {folder}/losses; the same command continues"


if __name__ == "__main__":
    sys.exit(main())
