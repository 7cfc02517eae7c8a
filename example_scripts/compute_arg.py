"""Average relative gain (ARG) of fine-tuned systems over a baseline, as tables and a chart.

    python example_scripts/compute_arg.py --summary1 tables/bart.csv --summary2 tables/moe.csv \\
        --output_file tables/gains.csv
    python example_scripts/compute_arg.py --summary1 bart.csv --summary2 moe.csv multitask.csv \\
        --output_file gains.csv --names BART mixture multi-task

The summaries are files of collect_results.py, of this project or of the published code. Writes gains.csv (per
task and system), gains_summary.csv (per system), gains.md, .tex, .png and .pdf; prints the Markdown. Exits
with 0; with 1 if a task is not in all summaries (and left out of the tables); with 2 if no table can be
written.
"""

import argparse
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataloader.errors import Faults, InputError
from routing_moe.cli.console import run_command
from routing_moe.io.files import unwritable, write_text
from routing_moe.plots.gains import plot_gains
from routing_moe.results import few_shot, gains
from routing_moe.results.few_shot_costs import costs_markdown, summary_cost
from routing_moe.results.gains_latex import gains_latex
from routing_moe.results.run_cost import TRAINING_COST


def main(argv: list[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    """1 if tasks are missing, else 0."""
    check(args)
    read = read_summaries(args)
    tasks, missing = gains.common_tasks(read, args.metric)
    if not tasks:
        raise InputError([*missing, f"no task has a mean {args.metric} in every summary"])
    write(args, read, tasks, missing)
    return 1 if missing else 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--summary1", type=Path, required=True, metavar="CSV", help="summary of the baseline")
    add("--summary2", type=Path, required=True, nargs="+", metavar="CSV", help="summaries of the systems")
    add("--output_file", type=Path, required=True, metavar="CSV", help="the other files have the same stem")
    add("--names", nargs="+", default=None, help="of the baseline and each system (default: file names)")
    add("--metric", choices=few_shot.SCORES[::-1], default=few_shot.SCORES[1], help="default: %(default)s")
    add("--min_baseline", type=float, default=gains.MIN_BASELINE, metavar="SCORE",
        help="no relative gain if the baseline is at most this (default: %(default)s)")  # fmt: skip
    return parser


def check(args) -> None:
    """Raises InputError with all errors in the flags."""
    paths = [args.summary1, *args.summary2]
    real = [path.resolve() for path in paths]
    faults = [f"--summary2 {p}: is given twice" for i, p in enumerate(paths) if real[i] in real[:i]]
    if not (math.isfinite(args.min_baseline) and args.min_baseline >= 0):
        faults.append(f"--min_baseline is {args.min_baseline:g}, expected a score of at least 0")
    names = args.names
    if names and len(names) != len(paths):
        faults.append(
            f"--names: {len(names)} names, expected {len(paths)}, one for the baseline and for each system"
        )
    elif names and (len(set(names)) < len(names) or not all(name.strip() for name in names)):
        faults.append(f"--names {' '.join(names)}: names must be different and not empty")
    fault = unwritable(args.output_file.parent)
    faults += [f"--output_file {fault}"] if fault else []
    if args.output_file.suffix != ".csv":
        faults.append(f"--output_file {args.output_file}: the name must end in .csv")
    for path in () if faults else (args.output_file, sibling(args, "_summary.csv")):
        if path.resolve() in real or path.is_dir():
            reason = "is a folder" if path.is_dir() else "is one of the summaries"
            faults.append(f"--output_file {args.output_file}: {path} {reason}; name another file")
    if faults:
        raise InputError(faults)


def sibling(args, end: str) -> Path:
    return args.output_file.with_name(args.output_file.stem + end)


def read_summaries(args) -> dict:
    """{name: summary}, the baseline first. Raises one InputError with the errors in all files."""
    paths, faults = [args.summary1, *args.summary2], Faults()
    read = [faults.of(few_shot.read_summary, path, args.metric) for path in paths]
    if faults:
        raise InputError(faults)
    return dict(zip(args.names or gains.system_names(paths), read, strict=True))


def write(args, read: dict, tasks: list[str], missing: list[str]) -> None:
    """Writes the six files and prints the Markdown. The files do not depend on time or place."""
    baseline, paths = next(iter(read)), [args.summary1, *args.summary2]
    per_task = gains.gains_per_task(read, tasks, args.min_baseline)
    per_system = gains.gains_per_system(per_task)
    explained = gains.explain_gains(per_task, baseline, args.metric, args.min_baseline)
    tables = [gains.tasks_markdown(per_task, baseline), gains.systems_markdown(per_system, baseline)]
    costs = dict(zip(read, [summary_cost(path, tasks) for path in paths], strict=True))
    if not all(math.isnan(value) for cost in costs.values() for value in cost.values()):
        for name in TRAINING_COST:
            per_system[name] = [costs[system][name] for system in per_system["system"]]
        tables.append(costs_markdown(costs))
    notes = [*missing, *gains.uneven_samples(per_task)]
    markdown = "\n\n".join(["\n".join(explained), *tables, *(f"- {note}" for note in notes)]) + "\n"
    args.output_file.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.output_file, per_task.to_csv(index=False))
    write_text(sibling(args, "_summary.csv"), per_system.to_csv(index=False))
    write_text(sibling(args, ".md"), markdown)
    write_text(sibling(args, ".tex"), gains_latex(per_task, per_system, baseline, explained))
    for end in (".png", ".pdf"):
        plot_gains(per_task, per_system, sibling(args, end), baseline, args.min_baseline)
    print(f"{markdown}\n{sibling(args, '')}.csv, _summary.csv, .md, .tex, .png, .pdf")
    for note in notes:
        print(note, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
