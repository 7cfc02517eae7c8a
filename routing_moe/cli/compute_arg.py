"""Average relative gain (ARG) of systems over a baseline, as tables and a chart.

    routing-moe compute-arg models/reproduce_paper/few_shot --baseline multitask --output_file gains.csv
    routing-moe compute-arg models/multitask models/moe
    routing-moe compute-arg --summary1 bart.csv --summary2 moe.csv multitask.csv \\
        --output_file gains.csv --names BART mixture multi-task

Summaries are files of collect_results.py, of this project or of the published code, or scores of tasks
without fine-tuning, written by --do_predict. Writes gains.csv (per task and system), gains_summary.csv (per
system), gains.md, .png and .pdf; prints the Markdown. Exits with 0; with 1 if a task is not in all summaries
(and left out of the tables); with 2 if no table can be written.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from routing_moe.config.console import run_command
from routing_moe.config.tables import GainSettings
from routing_moe.io.csv_files import read_table
from routing_moe.io.files import unwritable
from routing_moe.results import gains
from routing_moe.results.few_shot import check_metrics, read_summary
from routing_moe.results.runs import summary_path


def main(argv: list[str] | None = None) -> int:
    return run_command(run, GainSettings, argv, __doc__)


def run(settings: GainSettings) -> int:
    """Writes and prints the tables, which do not depend on time or place. Returns 1 if tasks are missing."""
    systems = gains.systems_of(settings)
    baseline, output = next(iter(systems)), settings.output_file or Path(f"{summary_path(systems)}.csv")
    stem, files = output.with_suffix(""), [path for by_seed in systems.values() for path in by_seed.values()]
    if problems := output_problems(output, files):
        raise InputError(problems)
    summaries = {
        name: {seed: read_summary(file, settings.metric) for seed, file in files.items()}
        for name, files in systems.items()
    }
    several = len({seed for files in systems.values() for seed in files}) > 1
    single = {
        f"{name}, seed {seed}" if several else name: summary
        for name, by_seed in summaries.items()
        for seed, summary in by_seed.items()
    }
    tasks, missing = gains.common_tasks(single, settings.metric)
    if not tasks:
        raise InputError([*missing, f"no task has a mean {settings.metric} in every summary"])
    check_metrics(single, tasks)
    lower_is_better = gains.is_loss(settings.metric)
    per_task = gains.gains_per_task(summaries, tasks, settings.min_baseline)
    per_system = gains.gains_per_system(per_task, settings.design, lower_is_better)
    explained = gains.explain_gains(per_task, baseline, settings.metric, settings.min_baseline)
    tables = [gains.tasks_markdown(per_task, baseline), gains.systems_markdown(per_system, baseline)]
    notes = [*missing, *gains.missing_seeds(systems), *gains.uneven_samples(per_task)]
    markdown = "\n\n".join(["\n".join(explained), *tables, *(f"- {note}" for note in notes)]) + "\n"
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, per_task.to_csv(index=False))
    write_text(Path(f"{stem}_summary.csv"), per_system.to_csv(index=False))
    write_text(Path(f"{stem}.md"), markdown)
    from routing_moe.pictures.dots import plot_gains  # imported late: matplotlib takes half a second
    from routing_moe.pictures.style import save

    save(plot_gains(per_task, per_system, baseline, settings.min_baseline, lower_is_better), stem)
    print(f"{markdown}\n{stem}.csv, _summary.csv, .md, .png, .pdf")
    for note in notes:
        print(note, file=sys.stderr)
    return 1 if missing else 0


def output_problems(output: Path, inputs: Sequence[Path]) -> list[str]:
    """Returns why the tables cannot be written, or would replace a summary or files of something else."""
    stem, problems = output.with_suffix(""), []
    if reason := unwritable(output.parent):
        problems.append(f"--output_file {reason}")
    if output.suffix != ".csv":
        problems.append(f"--output_file {output}: the name must end in .csv")
    elif output.is_dir():
        problems.append(f"--output_file {output} is a folder; name a file")
    elif not output.exists():
        others = (Path(f"{stem}{ending}") for ending in ("_summary.csv", ".md", ".png", ".pdf"))
        there = [f"--output_file {output} would replace {path}" for path in others if path.exists()]
        problems += [f"{problem}; delete it, or name another file" for problem in there]
    elif "relative_gain" not in read_table(output, nrows=0):
        problems.append(f"--output_file {output} holds another table; name another file")
    if {path.resolve() for path in inputs} & {output.resolve(), Path(f"{stem}_summary.csv").resolve()}:
        problems.append(f"--output_file {output} is one of the summaries; name another file")
    return problems
