"""Pictures of routes: who uses which expert, who is alike, how evenly experts are used, what changed.

    python -m routing_moe.cli.inspect_routes models/moe
    python -m routing_moe.cli.inspect_routes models/moe --before models/moe/stage1      what stage 2 changed
    python -m routing_moe.cli.inspect_routes runs/seed42 runs/seed43 --output_dir runs/both   do they agree?

Writes, of each run, routes (map of tasks and experts), similarity (tasks by their routes, with a dendrogram),
layers.csv (entropy, load) and neighbours.csv (each task's nearest); load, of all runs; of several runs
stability.csv and .md (agreement up to renaming of experts); with --before, change. Pictures as PNG and PDF.
Entropies and information are shares of log E, the most there is with E experts.
"""

import argparse
import itertools
import sys
from pathlib import Path

from dataloader.errors import InputError
from routing_moe.analysis.markdown import stability_markdown
from routing_moe.analysis.route_metrics import overlap
from routing_moe.analysis.route_tables import (
    change_table,
    common_routes,
    layer_table,
    neighbour_table,
    stability_table,
    summary,
)
from routing_moe.analysis.runs import ExplainedRun, notes_of, read_runs, safe_name
from routing_moe.analysis.saved_routes import Routes, encoder_part, load_routes
from routing_moe.analysis.stability import stability
from routing_moe.cli.console import run_command
from routing_moe.cli.routes_arguments import add_writing, checked_output_dir, explaining_parser
from routing_moe.io.files import write_text
from routing_moe.plots.clustermap import plot_clustered
from routing_moe.plots.expert_load import plot_load
from routing_moe.plots.route_change import plot_change
from routing_moe.plots.route_map import plot_routes
from routing_moe.plots.style import HeatScale
from routing_moe.results.scores import markdown_table

KINDS = ("png", "pdf")
DIGITS = "%.6g"


def main(argv: list[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


def run(args: argparse.Namespace) -> None:
    output_dir = checked_output_dir(args, least={"neighbours": 1})
    if args.before and len(args.runs) > 1:
        raise InputError(f"--before {args.before}: goes with a single RUN, not with {len(args.runs)}")
    if args.before_step != "best" and not args.before:
        raise InputError(f"--before_step {args.before_step}: has no effect without --before")
    runs = read_runs(args.runs, args.step, args.routes, args.task_ontology, with_features=False)
    before = args.before and load_routes(args.before, args.before_step, args.routes, "before_step")
    before = before and common_routes(runs[0].routes, before)
    pairs = [(a.name, b.name, stability(a.routes, b.routes)) for a, b in itertools.combinations(runs, 2)]
    write(args, runs, before, pairs, output_dir)


def build_parser() -> argparse.ArgumentParser:
    parser = explaining_parser("inspect_routes", __doc__)
    add = parser.add_argument_group("what is compared").add_argument
    add(
        "--before",
        help="another step, stage or checkpoint of the same model, for the picture of what changed",
    )
    add(
        "--before_step",
        default="best",
        help="of which evaluation of it: best, last, or a step (default: best)",
    )
    add("--neighbours", type=int, default=5, help="nearest tasks listed for each (default: 5)")
    add_writing(parser)
    return parser


def write(
    args, runs: list[ExplainedRun], before: tuple[Routes, Routes] | None, pairs, output_dir: Path
) -> None:
    layers = []
    for run in runs:
        place = output_dir if len(runs) == 1 else output_dir / safe_name(run.name)
        place.mkdir(parents=True, exist_ok=True)
        write_run(args, run, place)
        layers.append(layer_table(run.routes).assign(run=run.name))
    for kind in KINDS:
        plot_load([run.routes for run in runs], output_dir / f"load.{kind}", args.title)
    if before:
        title = args.title or f"{before[1].titled} minus {before[0].titled}"
        write_text(output_dir / "change.csv", change_table(*before).to_csv(index=False, float_format=DIGITS))
        for kind in KINDS:
            plot_change(*before, runs[0].ontology, output_dir / f"change.{kind}", title)
    text = "".join(f"- {note}\n" for note in notes_of(runs))
    text += f"{markdown_table(summary(layers, [run.name for run in runs]))}\n"
    if len(runs) > 1:
        write_text(
            output_dir / "stability.csv", stability_table(pairs).to_csv(index=False, float_format=DIGITS)
        )
        agreed = stability_markdown(pairs)
        write_text(output_dir / "stability.md", f"{agreed}\n")
        text += f"\n{agreed}\n"
    print(f"{text}\nwritten to {output_dir}")


def write_run(args, run: ExplainedRun, place: Path) -> None:
    """The pictures and tables of one run."""
    routes, ontology = run.routes, run.ontology
    title = args.title or f"Routes of {routes.titled}"
    alike_NN = overlap(routes.values_NLE)
    for kind in KINDS:
        plot_routes(
            routes.values_NLE, routes.tasks, ontology, place / f"routes.{kind}", encoder_part(routes.layers),
            title, routes.layers,
        )  # fmt: skip
        if len(routes.tasks) > 2:
            scale = HeatScale("overlap of routes", "Blues", 0.0, 1.0)
            plot_clustered(alike_NN, routes.tasks, ontology, place / f"similarity.{kind}", scale, title)
    write_text(place / "layers.csv", layer_table(routes).to_csv(index=False, float_format=DIGITS))
    neighbours = neighbour_table(routes, alike_NN, ontology, args.neighbours)
    write_text(place / "neighbours.csv", neighbours.to_csv(index=False, float_format=DIGITS))


if __name__ == "__main__":
    sys.exit(main())
