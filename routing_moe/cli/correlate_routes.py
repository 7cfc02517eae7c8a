"""Which experts go with which features of tasks, and how far routes know what kind a task is.

    python -m routing_moe.cli.correlate_routes models/moe
    python -m routing_moe.cli.correlate_routes models/moe --feature_file my_features.csv --top 5
    python -m routing_moe.cli.correlate_routes runs/seed42 runs/seed43 runs/seed44 --output_dir tables

Writes correlations.csv (a row per layer, expert and feature), top_experts.csv, recovery.csv (Mantel's test
and adjusted mutual information for each kind of features), features.md, and a picture of the correlations of
each run. Features: the ontology's, and those of a CSV file.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from routing_moe.analysis.correlation import PERMUTATIONS, correlate, top_experts
from routing_moe.analysis.markdown import features_markdown, recovery_markdown
from routing_moe.analysis.recovery import PERMUTATIONS as RECOVERY_PERMUTATIONS
from routing_moe.analysis.recovery import recovery_table
from routing_moe.analysis.runs import ExplainedRun, notes_of, read_runs, safe_name
from routing_moe.cli.console import run_command
from routing_moe.cli.routes_arguments import add_features, add_writing, checked_output_dir, explaining_parser
from routing_moe.io.files import write_text
from routing_moe.plots.correlations import plot_correlations

DIGITS = "%.6g"


def main(argv: list[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


def run(args: argparse.Namespace) -> None:
    output_dir = checked_output_dir(args, least={"permutations": 1, "top": 1, "seed": 0})
    runs = read_runs(args.runs, args.step, args.routes, args.task_ontology, args.feature_file)
    correlations, recovery = explain(runs, args.permutations, args.seed)
    write(args, runs, correlations, recovery, output_dir)


def build_parser() -> argparse.ArgumentParser:
    parser = explaining_parser("correlate_routes", __doc__)
    add_features(parser)
    add = parser.add_argument_group("tables").add_argument
    add("--top", type=int, default=3, help="experts listed for each feature (default: 3)")
    add_writing(parser)
    return parser


def explain(
    runs: Sequence[ExplainedRun], permutations: int | None = None, seed: int = 0
) -> tuple[list[pd.DataFrame], list[pd.DataFrame]]:
    """(correlations, recovery) of each run."""
    correlations, recovery = [], []
    for run in tqdm(runs, "correlating", leave=False, unit="run"):
        of_run = (run.routes, run.features)
        correlations.append(correlate(*of_run, permutations or PERMUTATIONS, seed))
        recovery.append(recovery_table(*of_run, permutations or RECOVERY_PERMUTATIONS, seed))
    return correlations, recovery


def write(args, runs, correlations, recovery, output_dir: Path) -> None:
    output_dir.mkdir(parents=True, exist_ok=True)
    names = [run.name for run in runs]
    tops = [top_experts(table, args.top) for table in correlations]
    for file, tables in (("correlations", correlations), ("top_experts", tops), ("recovery", recovery)):
        joint = pd.concat([t.assign(run=n) for n, t in zip(names, tables, strict=True)], ignore_index=True)
        columns = ["run", *(column for column in joint if column != "run")]
        write_text(output_dir / f"{file}.csv", joint[columns].to_csv(index=False, float_format=DIGITS))
    sections = [f"- {note}" for note in notes_of(runs)]
    for run, table, top in zip(runs, correlations, tops, strict=True):
        sections.append(features_markdown(run, table, top, args.permutations or PERMUTATIONS))
        file = "correlations" if len(runs) == 1 else f"correlations_{safe_name(run.name)}"
        for kind in ("png", "pdf"):
            title = args.title or f"{run.name}: correlation of routes and features"
            plot_correlations(table, run.routes, run.features, output_dir / f"{file}.{kind}", title)
    sections.append(recovery_markdown(names, recovery))
    text = "\n\n".join(sections) + "\n"
    write_text(output_dir / "features.md", text)
    print(f"{text}\n{output_dir}: correlations.csv, top_experts.csv, recovery.csv, features.md, pictures")


if __name__ == "__main__":
    sys.exit(main())
