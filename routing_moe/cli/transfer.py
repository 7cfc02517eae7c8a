"""Which tasks help each other: each task's loss along the experts of the others, and groups of tasks.

    routing-moe train ... --task_routes tasks --expert_kind lora --shared_base --output_dir models/tasks
    routing-moe transfer models/tasks      # writes tables, groups and a picture to models/tasks/transfer
    routing-moe train ... --task_routes models/tasks/transfer/groups.json --output_dir models/groups
    routing-moe transfer models/assembled --train_dir data/gym      # adapters that exist

transfer.csv has the loss of each task's rows along each expert, in nats per row; of low-rank experts also
along none, in the column (base). transfer.png has what each task gains along each expert. Losses are kept
expert by expert; the same command continues an interrupted one.
docs/routes_by_loss.md has a whole example, with rates.
"""

import logging
import os
import sys
from contextlib import ExitStack

from dataloader.errors import InputError, in_short, problem_context
from dataloader.gym import Example, Gym
from dataloader.jsonfile import load_json_object
from dataloader.ontology import Ontology, ontology_path
from routing_moe.answering.labelled_rows import labelled_rows
from routing_moe.checkpoints.find import find_mixture
from routing_moe.config.ablate import TransferSettings
from routing_moe.config.assemble import named_places
from routing_moe.config.console import run_command
from routing_moe.config.shared import given_texts
from routing_moe.io.files import unwritable
from routing_moe.io.run_folder import GROUPS_FILE, TABLE_FILE, TRANSFER_FILE, load_run_settings
from routing_moe.task_choice.contested import Contested

log = logging.getLogger("routing_moe")
RELIABLE = 0.8  # least adjusted mutual information of groups by halves of rows (docs/results/methods.md)


def main(argv: list[str] | None = None) -> int:
    return run_command(run, TransferSettings, argv, __doc__, kept)


def run(settings: TransferSettings) -> None:
    check_folder(settings)
    contested = Contested.load(settings.run)
    if contested and contested.are_few:
        return write_one_group(settings, contested)
    start = find_mixture(str(settings.run), settings.checkpoint_name, "checkpoint_name")
    saved = load_run_settings(settings.run) or {}
    tasks = [task for task in start.config.task_names if task in start.config.trained_tasks]
    rows = rows_of_tables(settings, tasks) if settings.tables else rows_of_gym(settings, saved, tasks)
    compare(settings, settings.mixed_precision or saved.get("mixed_precision"), *rows, contested)


def rows_of_tables(settings: TransferSettings, tasks: list[str]) -> tuple[list[Example], Ontology]:
    """Returns the rows of all tasks in --tables, and the ontology of CrossFit's tasks. Raises InputError."""
    if settings.train_dir:
        raise InputError("--train_dir and --tables both give the rows; leave one out")
    tables = named_places("tables", settings.tables)
    for task in set(tasks) ^ set(tables):
        hint = f"one of {in_short(tasks)}" if task in tables else f"give {task}=TABLE, too"
        raise InputError(f"--tables: {settings.run} has an expert for each of its tasks; {task}: {hint}")
    templates = settings.input, settings.output
    rows = [row for task in tasks for row in labelled_rows("tables", tables[task], task, *templates)]
    return rows, Ontology.load()


def rows_of_gym(settings: TransferSettings, saved: dict, tasks: list[str]) -> tuple[list[Example], Ontology]:
    """Returns the train rows of all tasks in the gym, and its ontology. saved: the settings of the run."""
    place = settings.train_dir or saved.get("train_dir")
    if place is None:
        advice = "give the gym of its tasks (--train_dir), or --tables"
        raise InputError(f"{settings.run} is no run with a gym: {advice}")
    with problem_context("--train_dir "):
        gym = Gym(place, saved.get("skip_malformed", False))
    if problems := gym.lacking(tasks, settings.run):
        raise InputError(f"--train_dir {place}: {problems[0]}; give the gym of its training")
    examples = gym.pool(tasks, "train", limit=8 if saved.get("debug") else None)
    return examples, Ontology.load(ontology_path(place, saved.get("task_ontology")))


def write_one_group(settings: TransferSettings, contested: Contested) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":
        from routing_moe.analysis.transfer import summary_of, write_groups

        summary = summary_of(settings.run, contested) | {"groups": 1, "total_flops": contested.scoring_flops}
        write_groups(settings.folder, dict.fromkeys(contested.rows, 0), summary)
        print(f"{contested.described()}; {settings.folder} has one group")


def check_folder(settings: TransferSettings) -> None:
    """Raises InputError for an output folder that cannot be written, or has files of something else."""
    folder = settings.folder
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
    settings: TransferSettings,
    precision: str | None,
    examples: list[Example],
    ontology: Ontology,
    contested: Contested | None,
) -> None:
    # Torch is imported here, after the checks: it takes seconds.
    from routing_moe.analysis.transfer import TransferJob
    from routing_moe.answering.routed import Routed
    from routing_moe.io.logs import start_logging
    from routing_moe.io.main_process import main_process_lock
    from routing_moe.pictures.heat_maps import plot_transfer
    from routing_moe.pictures.style import save

    routed = Routed.load(settings.run, settings.checkpoint_name, precision, **given_texts(settings))
    accelerator = routed.accelerator
    with ExitStack() as at_exit:
        at_exit.callback(accelerator.end_training)
        start_logging(accelerator.is_main_process)
        job = TransferJob(settings, routed, examples, contested)
        at_exit.enter_context(main_process_lock(accelerator, settings.folder))
        columns, losses_MM, affinity_MM, summary = job.run()
        if accelerator.is_main_process:
            if len(columns) > 2:
                figure = plot_transfer(losses_MM, affinity_MM, columns, ontology)
                save(figure, settings.folder / "transfer.png", "Rows gain along columns")
            log.info(
                "%(tasks)d tasks, %(groups)d groups (clusters %(clusters)d, silhouette %(silhouette).3f, "
                "agreement %(agreement).2f, advantage %(advantage).3f nats)",
                summary,
            )
            if summary["groups"] > 1 and summary["agreement"] < RELIABLE:
                log.warning(
                    "these groups are doubtful: by one half of each task's rows and by the other, they agree "
                    "by %.2f only (AMI; reliable from %.1f). Train the experts for more steps",
                    summary["agreement"],
                    RELIABLE,
                )


def kept(settings: TransferSettings) -> str:
    if not (settings.folder / "losses").is_dir():
        return "nothing was computed"
    return f"finished losses are kept in {settings.folder}/losses; the same command continues"


if __name__ == "__main__":
    sys.exit(main())
