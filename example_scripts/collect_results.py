"""Collect results of few-shot fine-tuning on many tasks in one table: mean and sample std over samples.

    python example_scripts/collect_results.py --logs_dir models/finetune --output_file tables/moe.csv
    python example_scripts/collect_results.py --logs_dir models/finetune --output_file tables/moe.csv \\
        --custom_tasks_splits dataloader/splits/random.json --section test

Reads the best configuration of each sample from LOGS_DIR/singletask-<task>/results.csv (or
<task>/results.csv; result.csv in runs of the published code). Writes the columns task, entry,
dev_performance, test_performance, n, for compute_arg.py, and active_parameters, total_parameters,
flops_per_example (of training) if the results have them; prints a Markdown table. Exits with 0; with 1 if
results are missing (listed on stderr); with 2 if there are no results at all.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataloader.errors import Faults, InputError
from dataloader.task_splits import SECTIONS, load_split
from routing_moe.cli.console import run_command
from routing_moe.io.files import unwritable, write_text
from routing_moe.results import few_shot


def main(argv: list[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    """1 if tasks are missing, which are listed; else 0."""
    table, missing = collect(args, expected_tasks(args))
    args.output_file.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.output_file, table.to_csv())
    print(f"{few_shot.summary_markdown(table)}\n\n{args.output_file}")
    for line in missing:
        print(line, file=sys.stderr)
    return 1 if missing else 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--logs_dir", type=Path, required=True, help="folder of the tasks' folders")
    add("--output_file", type=Path, required=True, help="CSV file to write")
    add("--postfix", default=few_shot.BEST, help="suffix of the rows to read (default: %(default)s)")
    which = parser.add_mutually_exclusive_group()
    add = which.add_argument
    add("--tasks", nargs="+", metavar="TASK", help="only these tasks (default: all tasks with a folder)")
    add("--custom_tasks_splits", type=Path, metavar="FILE", help="only the tasks of a section of this split")
    choices = (*SECTIONS, "all")
    parser.add_argument("--section", choices=choices, help="section of the split (default: test)")
    return parser


def expected_tasks(args) -> list[str] | None:
    """The tasks that the flags name, None for all. Raises InputError with all errors in the flags."""
    faults = Faults()
    if not args.postfix:
        faults.append(
            f"--postfix is empty, so that rows of all configurations would be read; give {few_shot.BEST}"
        )
    fault = unwritable(args.output_file.parent)
    faults += [f"--output_file {fault}"] if fault else []
    if args.output_file.is_dir():
        faults.append(f"--output_file {args.output_file}: is a folder; name a CSV file")
    elif args.output_file.name in few_shot.RESULT_FILES and args.output_file.exists():
        faults.append(
            f"--output_file {args.output_file}: would replace the results of a task; name another file"
        )
    tasks = args.tasks
    if args.custom_tasks_splits:
        split = faults.of(load_split, args.custom_tasks_splits, flag="custom_tasks_splits")
        tasks = list(split.section(args.section or "test")) if split else None
        if tasks == []:
            faults.append(f"--section {args.section or 'test'}: is empty in {args.custom_tasks_splits}")
    elif args.section:
        faults.append(f"--section {args.section}: a section needs a split; give --custom_tasks_splits")
    if faults:
        raise InputError(faults)
    return tasks


def collect(args, expected: list[str] | None) -> tuple[pd.DataFrame, list[str]]:
    """The summary, and one line for each task with missing results. Raises InputError without any results."""
    found = few_shot.find_results(args.logs_dir, expected)
    read = few_shot.read_all(found, args.postfix)
    missing = [*few_shot.missing_tasks(args.logs_dir, found), *few_shot.partial_tasks(read)]
    table = few_shot.summary_table(read)
    if table.empty:
        raise InputError([*missing, f"{args.logs_dir}: no row of a finished sample (<sample>{args.postfix})"])
    return table, missing


if __name__ == "__main__":
    sys.exit(main())
