"""Average relative gain (ARG) of systems over a baseline, as tables and a chart.

    python -m routing_moe.cli.compute_arg --summary1 tables/bart.csv --summary2 tables/moe.csv
    python -m routing_moe.cli.compute_arg --summary1 bart.csv --summary2 moe.csv multitask.csv \\
        --output_file gains.csv --names BART mixture multi-task

    python -m routing_moe.cli.compute_arg --summary1 models/avg/best/eval-test_tasks-test-performance.csv \\
        --summary2 models/moe/best/eval-test_tasks-test-performance.csv --names average mixture \\
        --group_templates median --output_file gains.csv

    python -m routing_moe.cli.compute_arg --seeds 42 43 --names BART mixture --output_file gains.csv \\
        --summary1 "few_shot/bart/seed{seed}/summary.csv" --summary2 "few_shot/moe/seed{seed}/summary.csv"

The summaries are files of collect_results.py, of this project or of the published code, or scores of tasks
without fine-tuning, written by --do_predict. Writes gains.csv (per task and system), gains_summary.csv (per
system), gains.md, .tex, .png and .pdf; prints the Markdown. Without --output_file, gains is
results_summary/CMP_<baseline>_<systems>. Exits with 0; with 1 if a task is not in all
summaries (and left out of the tables); with 2 if no table can be written.
"""

import dataclasses
import math
import re
import sys
from pathlib import Path

import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.errors import Faults, InputError
from routing_moe.cli.console import run_command
from routing_moe.config.flags import flag_faults, with_valid_values
from routing_moe.config.tables import GainSettings
from routing_moe.io.files import unwritable
from routing_moe.results import gains
from routing_moe.results.few_shot_costs import costs_markdown, summary_cost
from routing_moe.results.gains_latex import gains_latex
from routing_moe.results.run_cost import TRAINING_COST
from routing_moe.results.summaries import mixed_metrics, read_summary
from routing_moe.results.templates import gains_per_dataset, with_number_of_templates


def main(argv: list[str] | None = None) -> int:
    return run_command(run, GainSettings, argv, __doc__)


def run(settings: GainSettings) -> int:
    """Returns 1 if tasks are missing, else 0."""
    faults, names = Faults(), settings.names or gains.system_names(settings.summaries)
    if settings.output_file is None:
        name = re.sub(r"[^\w.-]", "-", "_".join(["CMP", *names]))
        settings = dataclasses.replace(settings, output_file=Path("results_summary", f"{name}.csv"))
    faults.of(check, settings)
    summaries = faults.of(read_summaries, with_valid_values(settings))
    if faults:
        raise InputError(faults)
    read = dict(zip(names, summaries, strict=True))
    single = {of_seed(name, seed, settings): own for name in read for seed, own in read[name].items()}
    tasks, missing = gains.common_tasks(single, settings.metric)
    if not tasks:
        raise InputError([*missing, f"no task has a mean {settings.metric} in every summary"])
    if mixed := mixed_metrics(single, tasks):
        raise InputError(mixed)
    costs = dict(zip(read, [cost_of(settings, path, tasks) for path in settings.summaries], strict=True))
    write(settings, next(iter(read)), gains_table(settings, read, tasks), costs, missing)
    return 1 if missing else 0


def of_seed(name: str, seed: int, settings: GainSettings) -> str:
    return f"{name}, seed {seed}" if settings.seeds else name


def check(settings: GainSettings) -> None:
    """Raises InputError with all errors in the flags."""
    paths = settings.summaries
    real = [path.resolve() for path in paths]
    faults = flag_faults(settings)
    if settings.seeds:
        faults += [f"{path}: --seeds needs {{seed}} in it" for path in paths if "{seed}" not in str(path)]
    faults += [f"--summary2 {p} is given twice" for i, p in enumerate(paths) if real[i] in real[:i]]
    names = settings.names
    if names and len(names) != len(paths):
        faults.append(
            f"--names: {len(names)} names, expected {len(paths)}, one for the baseline and for each system"
        )
    elif names and (len(set(names)) < len(names) or not all(name.strip() for name in names)):
        faults.append(f"--names {' '.join(names)}: names must be different and not empty")
    fault = unwritable(settings.output_file.parent)
    faults += [f"--output_file {fault}"] if fault else []
    if settings.output_file.suffix != ".csv":
        faults.append(f"--output_file {settings.output_file}: the name must end in .csv")
    for path in () if faults else (settings.output_file, sibling(settings, "_summary.csv")):
        read = [file.resolve() for each in paths for file in settings.by_seed(each).values()]
        if path.resolve() in read or path.is_dir():
            reason = "is a folder" if path.is_dir() else "is one of the summaries"
            faults.append(f"--output_file {settings.output_file}: {path} {reason}; name another file")
    if faults:
        raise InputError(faults)


def sibling(settings: GainSettings, end: str) -> Path:
    return settings.output_file.with_name(settings.output_file.stem + end)


def read_summaries(settings: GainSettings) -> list[dict[int, pd.DataFrame]]:
    """Returns the summaries, the baseline first: {seed: table}, with the seed 0 without --seeds.

    Raises one InputError with the errors in all files.
    """
    faults, read = Faults(), []
    for summary in settings.summaries:
        files = settings.by_seed(summary)
        if not files:
            faults.append(f"{summary}: no such file with any of --seeds {' '.join(map(str, settings.seeds))}")
        read.append({seed: faults.of(read_summary, path, settings.metric) for seed, path in files.items()})
    if faults:
        raise InputError(dict.fromkeys(faults))
    return read


def cost_of(settings: GainSettings, summary: Path, tasks: list[str]) -> dict[str, float]:
    """Returns `summary_cost`, the mean over seeds."""
    each = pd.DataFrame([summary_cost(path, tasks) for path in settings.by_seed(summary).values()])
    return each.mean(skipna=False).to_dict()


def gains_table(settings: GainSettings, read: dict[str, dict], tasks: list[str]) -> pd.DataFrame:
    """Returns the gains of each task, or of each data set."""

    def of_one(summaries: dict[str, pd.DataFrame], tasks: list[str]) -> pd.DataFrame:
        if settings.group_templates:
            return gains_per_dataset(summaries, tasks, settings.group_templates, settings.min_baseline)
        return gains.gains_per_task(summaries, tasks, settings.min_baseline)

    if settings.seeds:
        return gains.gains_over_seeds(read, tasks, of_one, settings.min_baseline)
    return of_one({name: own[0] for name, own in read.items()}, tasks)


def write(settings: GainSettings, baseline: str, per_task: pd.DataFrame, costs: dict, missing: list[str]):
    """Writes the six files and prints the Markdown. The files do not depend on time or place."""
    per_system = gains.gains_per_system(per_task)
    explained = gains.explain_gains(per_task, baseline, settings.metric, settings.min_baseline)
    shown = per_task
    if settings.group_templates:
        shown = with_number_of_templates(per_task)
        how = settings.group_templates
        explained.append(
            f"The templates of a data set are one task, with the {how} of their scores and no std."
        )
    tables = [gains.tasks_markdown(shown, baseline), gains.systems_markdown(per_system, baseline)]
    if not all(math.isnan(value) for cost in costs.values() for value in cost.values()):
        for name in TRAINING_COST:
            per_system[name] = [costs[system][name] for system in per_system["system"]]
        tables.append(costs_markdown(costs))
    notes = [*missing, *gains.uneven_samples(per_task)]
    markdown = "\n\n".join(["\n".join(explained), *tables, *(f"- {note}" for note in notes)]) + "\n"
    settings.output_file.parent.mkdir(parents=True, exist_ok=True)
    write_text(settings.output_file, per_task.to_csv(index=False))
    write_text(sibling(settings, "_summary.csv"), per_system.to_csv(index=False))
    write_text(sibling(settings, ".md"), markdown)
    write_text(sibling(settings, ".tex"), gains_latex(shown, per_system, baseline, explained))
    from routing_moe.plots.gains import plot_gains  # imported late: matplotlib takes half a second

    for end in (".png", ".pdf"):
        plot_gains(shown, per_system, sibling(settings, end), baseline, settings.min_baseline)
    print(f"{markdown}\n{sibling(settings, '')}.csv, _summary.csv, .md, .tex, .png, .pdf")
    for note in notes:
        print(note, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
