"""Collect results of few-shot fine-tuning on many tasks in one table: mean and sample std over samples.

    python -m routing_moe.cli.collect_results --logs_dir models/finetune --output_file tables/moe.csv
    python -m routing_moe.cli.collect_results --logs_dir models/finetune --output_file tables/moe.csv \\
        --custom_tasks_splits dataloader/splits/random.json --section test

Reads the best configuration of each sample from LOGS_DIR/singletask-<task>/results.csv (or
<task>/results.csv; result.csv in runs of the published code). Writes the columns task, entry,
dev_performance, test_performance, n, for compute_arg.py, and active_parameters, total_parameters,
flops_per_example (of training) if the results have them; prints a Markdown table. Exits with 0; with 1 if
results are missing (listed on stderr); with 2 if there are no results at all.
"""

import sys
from collections.abc import Sequence

import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.errors import Faults, InputError
from dataloader.task_splits import load_split
from routing_moe.cli.console import run_command
from routing_moe.config.flags import flag_faults, with_valid_values
from routing_moe.config.tables import CollectSettings
from routing_moe.io.files import unwritable
from routing_moe.results import few_shot


def main(argv: list[str] | None = None) -> int:
    return run_command(run, CollectSettings, argv, __doc__)


def run(settings: CollectSettings) -> int:
    """Returns 1 if tasks are missing, which are listed, else 0."""
    table, missing = collect(settings, expected_tasks(settings))
    settings.output_file.parent.mkdir(parents=True, exist_ok=True)
    write_text(settings.output_file, table.to_csv())
    print(f"{few_shot.summary_markdown(table)}\n\n{settings.output_file}")
    for line in missing:
        print(line, file=sys.stderr)
    return 1 if missing else 0


def expected_tasks(settings: CollectSettings) -> Sequence[str] | None:
    """Returns the tasks that the flags name, None for all. Raises InputError with all errors in the flags."""
    faults = Faults(flag_faults(settings))
    if not settings.postfix:
        faults.append(
            f"--postfix is empty, so that rows of all configurations would be read; give {few_shot.BEST}"
        )
    fault = unwritable(settings.output_file.parent)
    faults += [f"--output_file {fault}"] if fault else []
    if settings.output_file.is_dir():
        faults.append(f"--output_file {settings.output_file} is a folder; name a CSV file")
    elif settings.output_file.name in few_shot.RESULT_FILES and settings.output_file.exists():
        faults.append(
            f"--output_file {settings.output_file}: would replace the results of a task; name another file"
        )
    tasks = settings.tasks
    if settings.custom_tasks_splits and tasks is not None:
        faults.append("--tasks and --custom_tasks_splits both choose tasks; give one of them")
    elif settings.section and not settings.custom_tasks_splits:
        faults.append("--section is a section of a split; name the split with --custom_tasks_splits")
    elif settings.custom_tasks_splits:
        split = faults.of(load_split, settings.custom_tasks_splits, flag="custom_tasks_splits")
        section = with_valid_values(settings).section or "test"
        tasks = list(split.section(section)) if split else None
        if tasks == []:
            faults.append(f"--section {section} is empty in {settings.custom_tasks_splits}")
    if faults:
        raise InputError(faults)
    return tasks


def collect(settings: CollectSettings, expected: Sequence[str] | None) -> tuple[pd.DataFrame, list[str]]:
    """Returns the summary, and one line for each task with missing results. Raises InputError if none."""
    found = few_shot.find_results(settings.logs_dir, expected)
    read = few_shot.read_all(found, settings.postfix)
    missing = [*few_shot.missing_tasks(settings.logs_dir, found), *few_shot.partial_tasks(read)]
    table = few_shot.summary_table(read)
    if table.empty:
        raise InputError(
            [*missing, f"{settings.logs_dir}: no row of a finished sample (<sample>{settings.postfix})"]
        )
    return table, missing


if __name__ == "__main__":
    sys.exit(main())
