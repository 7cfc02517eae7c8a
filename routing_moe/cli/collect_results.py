"""Collect results of few-shot fine-tuning on many tasks in one table: mean and sample std over samples.

    routing-moe collect-results --logs_dir models/finetune --output_file tables/moe.csv
    routing-moe collect-results --logs_dir models/finetune --output_file tables/moe.csv \\
        --custom_tasks_splits dataloader/splits/random.json --section test

Reads the best configuration of each sample from LOGS_DIR/singletask-<task>/results.csv (or
<task>/results.csv; result.csv in runs of the published code). Writes the columns task, entry,
dev_performance, test_performance, n, for compute_arg.py, and active_parameters, total_parameters,
flops_per_example (of training) if the results have them; prints a Markdown table. Exits with 0; with 1 if
results are missing (listed on stderr); with 2 if there are no results at all.
"""

import sys

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, problem_context
from dataloader.task_splits import load_split
from routing_moe.config.console import run_command
from routing_moe.config.tables import CollectSettings
from routing_moe.io.csv_files import read_table
from routing_moe.io.files import unwritable
from routing_moe.results import few_shot


def main(argv: list[str] | None = None) -> int:
    return run_command(collect, CollectSettings, argv, __doc__)


def collect(settings: CollectSettings) -> int:
    """Returns 1 if results are missing, which are listed, else 0."""
    problems, output, tasks = [], settings.output_file, settings.tasks
    if reason := unwritable(output.parent):
        problems.append(f"--output_file {reason}")
    if output.is_dir() or output.suffix.lower() != ".csv":
        problems.append(f"--output_file {output}: the table is a CSV file; name a file *.csv")
    elif output.name in few_shot.RESULT_FILES and output.exists():
        problems.append(f"--output_file {output}: would replace the results of a task; name another file")
    elif output.exists() and not {"task", "entry"} <= set(read_table(output, nrows=0)):
        problems.append(f"--output_file {output} is not a table of this command; name another file")
    if settings.custom_tasks_splits and tasks is not None:
        problems.append("--tasks and --custom_tasks_splits both choose tasks; give one of them")
    if settings.section and not settings.custom_tasks_splits:
        problems.append(f"--section {settings.section}: of a split; name it with --custom_tasks_splits")
    if problems:
        raise InputError(problems)
    if settings.custom_tasks_splits:
        with problem_context("--custom_tasks_splits "):
            tasks = load_split(settings.custom_tasks_splits).section(settings.section or "test")
    files = few_shot.find_results(settings.logs_dir, tasks)
    results = [few_shot.read_results(task, path, settings.postfix) for task, path in files.items() if path]
    few_shot.check_distinct(files, results)
    missing, table = few_shot.missing_results(files, results), few_shot.summary_table(results)
    if table.empty:
        hint = f"no row of a finished sample (<sample>{settings.postfix})"
        raise InputError([*missing, f"{settings.logs_dir}: {hint}"])
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, table.to_csv())
    print(f"{few_shot.summary_markdown(table)}\n\n{output}")
    for line in missing:
        print(line, file=sys.stderr)
    return 1 if missing else 0
