"""Writes the tables and pictures of routes, and of their correlations with features of tasks."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.progress import ProgressBar
from routing_moe.analysis.correlation import PERMUTATIONS, correlate, top_experts
from routing_moe.analysis.markdown import features_markdown, recovery_markdown, stability_markdown
from routing_moe.analysis.recovery import PERMUTATIONS as RECOVERY_PERMUTATIONS
from routing_moe.analysis.recovery import recovery_table
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
from routing_moe.config.explain import CorrelateSettings, InspectSettings
from routing_moe.plots.clustermap import plot_clustered
from routing_moe.plots.correlations import plot_correlations
from routing_moe.plots.expert_load import plot_load
from routing_moe.plots.route_change import plot_change
from routing_moe.plots.route_map import plot_routes
from routing_moe.plots.style import HeatScale
from routing_moe.results.markdown import markdown_table


def _write_table(table: pd.DataFrame, path: Path) -> None:
    write_text(path, table.to_csv(index=False, float_format="%.6g"))


def _write_pictures(plot: Callable, *arguments, path: Path, **options) -> None:
    """Writes a picture as PNG and as PDF: plot(*arguments, path, **options)."""
    for ending in (".png", ".pdf"):
        plot(*arguments, path.with_name(path.name + ending), **options)


# ---------------------------------------------------------------------------- routes


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
        folder = output_dir if len(runs) == 1 else output_dir / safe_name(run.name)
        folder.mkdir(parents=True, exist_ok=True)
        write_run(settings, run, folder)
        layers.append(layer_table(run.routes).assign(run=run.name))
    _write_pictures(plot_load, [run.routes for run in runs], path=output_dir / "load", title=settings.title)
    if before:
        title = settings.title or f"{before[1].titled} minus {before[0].titled}"
        _write_table(change_table(*before), output_dir / "change.csv")
        _write_pictures(plot_change, *before, runs[0].ontology, path=output_dir / "change", title=title)
    text = "".join(f"- {note}\n" for note in notes_of(runs))
    text += f"{markdown_table(summary(layers, [run.name for run in runs]))}\n"
    if len(runs) > 1:
        _write_table(stability_table(pairs), output_dir / "stability.csv")
        agreement = stability_markdown(pairs)
        write_text(output_dir / "stability.md", f"{agreement}\n")
        text += f"\n{agreement}\n"
    return text


def write_run(settings: InspectSettings, run: ExplainedRun, folder: Path) -> None:
    """Writes the pictures and tables of one run."""
    routes, ontology = run.routes, run.ontology
    title = settings.title or f"Routes of {routes.titled}"
    overlap_NN = overlap(routes.values_NLE)
    _write_pictures(
        plot_routes, routes.values_NLE, routes.tasks, ontology, path=folder / "routes",
        encoder_layers=encoder_part(routes.layers), title=title, layers=routes.layers,
    )  # fmt: skip
    if len(routes.tasks) > 2:
        scale = HeatScale("overlap of routes", "Blues", 0.0, 1.0)
        tasks = (routes.tasks, ontology)
        _write_pictures(
            plot_clustered, overlap_NN, *tasks, path=folder / "similarity", scale=scale, title=title
        )
    _write_table(layer_table(routes), folder / "layers.csv")
    _write_table(
        neighbour_table(routes, overlap_NN, ontology, settings.neighbours), folder / "neighbours.csv"
    )


# ---------------------------------------------------------------------------- features


def write_feature_files(settings: CorrelateSettings, runs: Sequence[ExplainedRun], output_dir: Path) -> str:
    """Writes the tables and pictures; returns a summary as Markdown."""
    correlations, recovery = explain(runs, settings.permutations, settings.seed)
    output_dir.mkdir(parents=True, exist_ok=True)
    names = [run.name for run in runs]
    tops = [top_experts(table, settings.top) for table in correlations]
    for file, tables in (("correlations", correlations), ("top_experts", tops), ("recovery", recovery)):
        joint = pd.concat([t.assign(run=n) for n, t in zip(names, tables, strict=True)], ignore_index=True)
        columns = ["run", *(column for column in joint if column != "run")]
        _write_table(joint[columns], output_dir / f"{file}.csv")
    sections = [f"- {note}" for note in notes_of(runs)]
    for run, table, top in zip(runs, correlations, tops, strict=True):
        sections.append(features_markdown(run, table, top, settings.permutations or PERMUTATIONS))
        file = "correlations" if len(runs) == 1 else f"correlations_{safe_name(run.name)}"
        title = settings.title or f"{run.name}: correlation of routes and features"
        _write_pictures(
            plot_correlations, table, run.routes, run.features, path=output_dir / file, title=title
        )
    sections.append(recovery_markdown(names, recovery))
    text = "\n\n".join(sections) + "\n"
    write_text(output_dir / "features.md", text)
    return text


def explain(
    runs: Sequence[ExplainedRun], permutations: int | None = None, seed: int = 0
) -> tuple[list[pd.DataFrame], list[pd.DataFrame]]:
    """Returns (correlations, recovery), each a table per run. permutations: None for those of each test."""
    correlations, recovery = [], []
    for run in ProgressBar(runs, "correlating", unit="run"):
        data = (run.routes, run.features)
        correlations.append(correlate(*data, permutations or PERMUTATIONS, seed))
        recovery.append(recovery_table(*data, permutations or RECOVERY_PERMUTATIONS, seed))
    return correlations, recovery
