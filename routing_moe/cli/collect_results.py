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
from collections.abc import Sequence

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, Problems
from dataloader.task_splits import load_split
from routing_moe.cli.console import run_command
from routing_moe.config.flags import flag_problems
from routing_moe.config.tables import CollectSettings
from routing_moe.io.files import unwritable
from routing_moe.results import few_shot


def main(argv: list[str] | None = None) -> int:
    return run_command(collect, CollectSettings, argv, __doc__)


def collect(settings: CollectSettings) -> int:
    """Returns 1 if results are missing, which are listed, else 0."""
    files = few_shot.find_results(settings.logs_dir, expected_tasks(settings))
    results = [few_shot.read_results(task, path, settings.postfix) for task, path in files.items() if path]
    missing = few_shot.missing_results(files, results)
    table = few_shot.summary_table(results)
    if table.empty:
        raise InputError(
            [*missing, f"{settings.logs_dir}: no row of a finished sample (<sample>{settings.postfix})"]
        )
    settings.output_file.parent.mkdir(parents=True, exist_ok=True)
    write_text(settings.output_file, table.to_csv())
    print(f"{few_shot.summary_markdown(table)}\n\n{settings.output_file}")
    for line in missing:
        print(line, file=sys.stderr)
    return 1 if missing else 0


def expected_tasks(settings: CollectSettings) -> Sequence[str] | None:
    """Returns the tasks that the flags name, None for all. Raises InputError for wrong flags."""
    problems, output, tasks = Problems(flag_problems(settings)), settings.output_file, settings.tasks
    if reason := unwritable(output.parent):
        problems.append(f"--output_file {reason}")
    if output.is_dir():
        problems.append(f"--output_file {output} is a folder; name a CSV file")
    elif output.name in few_shot.RESULT_FILES and output.exists():
        problems.append(f"--output_file {output}: would replace the results of a task; name another file")
    if settings.custom_tasks_splits and tasks is not None:
        problems.append("--tasks and --custom_tasks_splits both choose tasks; give one of them")
    elif settings.custom_tasks_splits:
        split = problems.of(load_split, settings.custom_tasks_splits, flag="custom_tasks_splits")
        tasks = split and split.section(settings.section)
    if problems:
        raise InputError(problems)
    return tasks


if __name__ == "__main__":
    sys.exit(main())
