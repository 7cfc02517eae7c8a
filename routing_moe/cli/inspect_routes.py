"""Pictures of routes: experts of each task, similar tasks, load of experts.

    routing-moe inspect-routes models/moe
    routing-moe inspect-routes runs/seed42 runs/seed43 --output_dir pictures

Writes, of each run, routes (map of tasks and experts), similarity (tasks by their routes, with a dendrogram),
layers.csv (entropy, load) and neighbours.csv (each task's nearest); load, of all runs.
Entropies and information are shares of log E, the maximum with E experts.
"""

from routing_moe.analysis.runs import read_runs
from routing_moe.config.console import run_command
from routing_moe.config.explain import InspectSettings, output_place


def main(argv: list[str] | None = None) -> int:
    return run_command(run, InspectSettings, argv, __doc__)


def run(settings: InspectSettings) -> None:
    output_dir = output_place(settings, "output_dir", "")
    options = (settings.step, settings.routes, settings.task_ontology)
    runs = read_runs(settings.runs, *options, with_features=False)
    from routing_moe.report.files import write_route_files  # takes a second

    print(f"{write_route_files(settings, runs, output_dir)}\nwritten to {output_dir}")
