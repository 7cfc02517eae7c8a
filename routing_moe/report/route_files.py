"""Writes the tables and pictures of routes: experts of each task, similar tasks, changes."""

import itertools
from pathlib import Path

from dataloader.atomic_files import write_text
from routing_moe.analysis.markdown import stability_markdown
from routing_moe.analysis.route_metrics import overlap
from routing_moe.analysis.route_tables import (
    change_table,
    layer_table,
    neighbour_table,
    stability_table,
    summary,
)
from routing_moe.analysis.runs import ExplainedRun, notes_of, safe_name
from routing_moe.analysis.saved_routes import Routes, encoder_part
from routing_moe.analysis.stability import stability
from routing_moe.config.explain import InspectSettings
from routing_moe.plots.clustermap import plot_clustered
from routing_moe.plots.expert_load import plot_load
from routing_moe.plots.route_change import plot_change
from routing_moe.plots.route_map import plot_routes
from routing_moe.plots.style import HeatScale
from routing_moe.results.markdown import markdown_table

KINDS = ("png", "pdf")
DIGITS = "%.6g"


def write_route_files(
    settings: InspectSettings,
    runs: list[ExplainedRun],
    before: tuple[Routes, Routes] | None,
    output_dir: Path,
) -> str:
    """Writes the tables and pictures; returns a summary as Markdown.

    before: `common_routes` of the only run and of another one.
    """
    pairs = [(a.name, b.name, stability(a.routes, b.routes)) for a, b in itertools.combinations(runs, 2)]
    layers = []
    for run in runs:
        place = output_dir if len(runs) == 1 else output_dir / safe_name(run.name)
        place.mkdir(parents=True, exist_ok=True)
        write_run(settings, run, place)
        layers.append(layer_table(run.routes).assign(run=run.name))
    for kind in KINDS:
        plot_load([run.routes for run in runs], output_dir / f"load.{kind}", settings.title)
    if before:
        title = settings.title or f"{before[1].titled} minus {before[0].titled}"
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
    return text


def write_run(settings: InspectSettings, run: ExplainedRun, place: Path) -> None:
    """Writes the pictures and tables of one run."""
    routes, ontology = run.routes, run.ontology
    title = settings.title or f"Routes of {routes.titled}"
    overlap_NN = overlap(routes.values_NLE)
    for kind in KINDS:
        plot_routes(
            routes.values_NLE, routes.tasks, ontology, place / f"routes.{kind}", encoder_part(routes.layers),
            title, routes.layers,
        )  # fmt: skip
        if len(routes.tasks) > 2:
            scale = HeatScale("overlap of routes", "Blues", 0.0, 1.0)
            plot_clustered(overlap_NN, routes.tasks, ontology, place / f"similarity.{kind}", scale, title)
    write_text(place / "layers.csv", layer_table(routes).to_csv(index=False, float_format=DIGITS))
    neighbours = neighbour_table(routes, overlap_NN, ontology, settings.neighbours)
    write_text(place / "neighbours.csv", neighbours.to_csv(index=False, float_format=DIGITS))
