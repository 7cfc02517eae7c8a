"""Pictures of routes: experts of each task, similar tasks, load of experts, changes.

    routing-moe inspect-routes models/moe
    routing-moe inspect-routes models/moe --before models/moe/stage1      the change by stage 2

Writes, of each run, routes (map of tasks and experts), similarity (tasks by their routes, with a dendrogram),
layers.csv (entropy, load) and neighbours.csv (each task's nearest); load, of all runs; with --before, change.
Pictures as PNG and PDF.
Entropies and information are shares of log E, the maximum with E experts.
"""

import sys

from dataloader.errors import InputError
from routing_moe.analysis.runs import read_runs
from routing_moe.analysis.saved_routes import load_routes
from routing_moe.cli.console import run_command
from routing_moe.config.explain import InspectSettings, checked_output_dir


def main(argv: list[str] | None = None) -> int:
    return run_command(run, InspectSettings, argv, __doc__)


def run(settings: InspectSettings) -> None:
    output_dir = checked_output_dir(settings)
    if settings.before and len(settings.runs) > 1:
        raise InputError(f"--before {settings.before}: needs a single RUN, not {len(settings.runs)}")
    options = (settings.step, settings.routes, settings.task_ontology)
    runs, before = read_runs(settings.runs, *options, with_features=False), None
    if settings.before:
        before = load_routes(settings.before, settings.before_step, settings.routes, "before_step")
    # These take a second, so flags and files are checked before.
    from routing_moe.analysis.route_metrics import common_routes
    from routing_moe.report.files import write_route_files

    compared = common_routes(runs[0].routes, before) if before else None
    text = write_route_files(settings, runs, compared, output_dir)
    print(f"{text}\nwritten to {output_dir}")


if __name__ == "__main__":
    sys.exit(main())
