"""Correlations of experts with features of tasks, and agreement of routes with kinds of tasks.

    routing-moe correlate-routes models/moe
    routing-moe correlate-routes models/moe --feature_file my_features.csv --top 5
    routing-moe correlate-routes runs/seed42 runs/seed43 runs/seed44 --output_dir tables

Writes correlations.csv (a row per layer, expert and feature), top_experts.csv, recovery.csv (Mantel's test
and adjusted mutual information for each kind of features), features.md, and a picture of the correlations of
each run. Features: the ontology's, and those of a CSV file.
"""

from routing_moe.analysis.runs import read_runs
from routing_moe.config.console import run_command
from routing_moe.config.explain import CorrelateSettings, output_place


def main(argv: list[str] | None = None) -> int:
    return run_command(run, CorrelateSettings, argv, __doc__)


def run(settings: CorrelateSettings) -> None:
    output_dir = output_place(settings, "output_dir", "")
    how = (settings.step, settings.routes, settings.task_ontology, settings.feature_file)
    runs = read_runs(settings.runs, *how)
    from routing_moe.report.files import write_feature_files  # takes a second

    text = write_feature_files(settings, runs, output_dir)
    print(f"{text}\n{output_dir}: correlations.csv, top_experts.csv, recovery.csv, features.md, pictures")
