"""Which tasks help each other: each task's loss along the experts of the others, and groups of tasks.

    routing-moe train ... --task_routes tasks --expert_kind lora --shared_base --output_dir models/tasks
    routing-moe transfer models/tasks      # writes tables, groups and a picture to models/tasks/transfer
    routing-moe train ... --task_routes models/tasks/transfer/groups.json --output_dir models/groups

transfer.csv has the loss of each task's rows along each expert, in nats per row; transfer.png what each task
gains along each expert. Losses are kept expert by expert; the same command continues an interrupted one.
docs/routes_by_loss.md has a whole example, with rates.
"""

import logging
import os
import sys
from contextlib import ExitStack
from pathlib import Path

from dataloader.errors import InputError, in_short
from dataloader.jsonfile import load_json_object
from routing_moe.checkpoints.find import mixture_to_score
from routing_moe.config.ablate import TransferSettings, transfer_settings
from routing_moe.config.console import reporting_errors
from routing_moe.config.flags import flag_problems, parse
from routing_moe.io.files import unwritable
from routing_moe.io.run_folder import GROUPS_FILE, TABLE_FILE, TRANSFER_FILE
from routing_moe.task_choice.contested import Contested
from routing_moe.training.checks import Inputs, check_inputs

log = logging.getLogger("routing_moe")


def main(argv: list[str] | None = None) -> int:
    values, started = parse(TransferSettings, argv, __doc__), []
    with reporting_errors(lambda: what_is_kept(*started)) as result:
        run(transfer_settings(values), started)
    return result.exit_code


def run(settings: TransferSettings, started: list[Path]) -> None:
    if problems := flag_problems(settings):
        raise InputError(problems[0])
    check_folder(settings)
    contested = Contested.load(settings.run)
    is_divided = contested is None or not contested.are_few
    if is_divided:
        mixture_to_score(settings.prediction.start)
        inputs = check_inputs(settings.prediction, writes=False)
        if unknown := sorted(set(inputs.split.train).difference(inputs.config.task_names)):
            problem = f"{settings.run} was not trained on {in_short(unknown)}; give the gym of its training"
            raise InputError(f"--train_dir {settings.prediction.train_dir}: {problem}")
        compare(settings, inputs, contested, started)
    elif os.environ.get("LOCAL_RANK", "0") == "0":
        from routing_moe.analysis.transfer import summary_of, write_groups

        summary = summary_of(settings.run, contested) | {"groups": 1, "total_flops": contested.scoring_flops}
        write_groups(settings.output_dir, dict.fromkeys(contested.rows, 0), summary)
        print(f"{contested.described()}; {settings.output_dir} has one group")


def check_folder(settings: TransferSettings) -> None:
    """Raises InputError for an output folder that cannot be written, or has files of something else."""
    folder = settings.output_dir
    if reason := unwritable(folder):
        raise InputError(f"--output_dir {reason}")
    is_ours = (folder / TRANSFER_FILE).exists() and not (folder / "run.json").exists()
    for name in ("run.json", GROUPS_FILE, TABLE_FILE):
        if (folder / name).exists() and not is_ours:
            raise InputError(f"--output_dir {folder} holds {name} of something else; name another folder")
    if is_ours and (folder / GROUPS_FILE).exists():
        saved = load_json_object(folder / TRANSFER_FILE, "how tasks were grouped")
        if (before := saved.get("least_advantage", settings.advantage)) != settings.advantage:
            raise InputError(
                f"--advantage is {settings.advantage:g}, but {folder / GROUPS_FILE} was made with "
                f"{before:g}; delete it, and train along the new groups in another folder"
            )


def compare(
    settings: TransferSettings, inputs: Inputs, contested: Contested | None, started: list[Path]
) -> None:
    # Torch is imported here, after the checks: it takes seconds.
    from routing_moe.analysis.transfer import TransferJob
    from routing_moe.io.accelerator import make_accelerator
    from routing_moe.io.logs import start_logging
    from routing_moe.io.main_process import main_process_lock
    from routing_moe.pictures.heat_maps import plot_transfer
    from routing_moe.pictures.style import save

    accelerator = make_accelerator(settings.prediction.mixed_precision)
    with ExitStack() as at_exit:
        at_exit.callback(accelerator.end_training)
        start_logging(accelerator.is_main_process)
        job = TransferJob(settings, inputs, contested, accelerator)
        at_exit.enter_context(main_process_lock(accelerator, settings.output_dir))
        started.append(settings.output_dir)
        columns, losses_MM, affinity_MM, summary = job.run(list(inputs.split.train))
        if accelerator.is_main_process:
            if len(columns) > 2:
                figure = plot_transfer(losses_MM, affinity_MM, columns, inputs.ontology)
                save(figure, settings.output_dir / "transfer.png", "Rows gain along columns")
            log.info(
                "%(tasks)d tasks, %(groups)d groups (clusters %(clusters)d, silhouette %(silhouette).3f, "
                "advantage %(advantage).3f nats)",
                summary,
            )


def what_is_kept(folder: Path | None = None) -> str:
    if folder is None:
        return "nothing was started"
    return f"finished losses are kept in {folder}/losses; the same command continues"


if __name__ == "__main__":
    sys.exit(main())
