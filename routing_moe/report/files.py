"""Writes the tables and pictures of routes, and of their correlations with features of tasks."""

import itertools
from collections.abc import Sequence
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
from routing_moe.analysis.saved_routes import Routes
from routing_moe.analysis.stability import stability
from routing_moe.config.explain import CorrelateSettings, InspectSettings
from routing_moe.pictures.heat_maps import (
    OVERLAP,
    plot_change,
    plot_clustered,
    plot_correlations,
    plot_routes,
)
from routing_moe.pictures.lines import plot_load
from routing_moe.pictures.style import save
from routing_moe.results.markdown import markdown_table


def _write_table(table: pd.DataFrame, path: Path) -> None:
    write_text(path, table.to_csv(index=False, float_format="%.6g"))


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
    save(plot_load([run.routes for run in runs]), output_dir / "load", settings.title)
    if before:
        title = settings.title or f"{before[1].titled} minus {before[0].titled}"
        _write_table(change_table(*before), output_dir / "change.csv")
        save(plot_change(*before, runs[0].ontology), output_dir / "change", title)
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
    save(plot_routes(routes.values_NLE, routes.tasks, routes.layers, ontology), folder / "routes", title)
    if len(routes.tasks) > 2:
        save(plot_clustered(overlap_NN, routes.tasks, ontology, OVERLAP), folder / "similarity", title)
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
        save(plot_correlations(table, run.routes, run.features), output_dir / file, title)
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
