"""Writes the tables and pictures of routes, and of their correlations with features of tasks."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.progress import ProgressBar
from routing_moe.analysis import recovery
from routing_moe.analysis.correlation import PERMUTATIONS, correlate, features_markdown, top_experts
from routing_moe.analysis.route_metrics import layer_table, neighbour_table, overlap, summary
from routing_moe.analysis.runs import ExplainedRun, notes_of, safe_name
from routing_moe.config.explain import CorrelateSettings, InspectSettings
from routing_moe.pictures import heat_maps
from routing_moe.pictures.lines import plot_load
from routing_moe.pictures.style import save
from routing_moe.results.markdown import markdown_table


def write_table(table: pd.DataFrame, path: Path) -> None:
    write_text(path, table.to_csv(index=False, float_format="%.6g"))


def write_route_files(settings: InspectSettings, runs: list[ExplainedRun], output_dir: Path) -> str:
    """Writes the tables and pictures; returns a summary as Markdown."""
    for run in runs:
        folder = output_dir if len(runs) == 1 else output_dir / safe_name(run.name)
        folder.mkdir(parents=True, exist_ok=True)
        routes, ontology = run.routes, run.ontology
        title = settings.title or f"Routes of {routes.titled}"
        overlap_NN = overlap(routes.values_NLE)
        figure = heat_maps.plot_routes(routes.values_NLE, routes.tasks, routes.layers, ontology)
        save(figure, folder / "routes", title)
        if len(routes.tasks) > 2:
            figure = heat_maps.plot_clustered(overlap_NN, routes.tasks, ontology, heat_maps.OVERLAP)
            save(figure, folder / "similarity", title)
        write_table(layer_table(routes), folder / "layers.csv")
        nearest = neighbour_table(routes, overlap_NN, ontology, settings.neighbours)
        write_table(nearest, folder / "neighbours.csv")
    save(plot_load([run.routes for run in runs]), output_dir / "load", settings.title)
    notes = "".join(f"- {note}\n" for note in notes_of(runs))
    return f"{notes}{markdown_table(summary([run.routes for run in runs]))}\n"


def write_feature_files(settings: CorrelateSettings, runs: Sequence[ExplainedRun], output_dir: Path) -> str:
    """Writes the tables and pictures; returns a summary as Markdown."""
    permutations, seed = settings.permutations, settings.seed
    tables: dict[str, list[pd.DataFrame]] = {"correlations": [], "top_experts": [], "recovery": []}
    sections = [f"- {note}" for note in notes_of(runs)]
    output_dir.mkdir(parents=True, exist_ok=True)
    for run in ProgressBar(runs, "correlating", unit="run"):
        table = correlate(run.routes, run.features, permutations or PERMUTATIONS, seed)
        top = top_experts(table, settings.top)
        kinds = (run.routes, run.features, permutations or recovery.PERMUTATIONS, seed)
        for file, of_run in zip(tables, (table, top, recovery.recovery_table(*kinds)), strict=True):
            tables[file].append(of_run.assign(run=run.name))
        sections.append(features_markdown(run, table, top))
        file = "correlations" if len(runs) == 1 else f"correlations_{safe_name(run.name)}"
        title = settings.title or f"{run.name}: correlation of routes and features"
        save(heat_maps.plot_correlations(table, run.routes, run.features), output_dir / file, title)
    for file, of_runs in tables.items():
        joint = pd.concat(of_runs, ignore_index=True)
        write_table(joint[["run", *joint.columns.drop("run")]], output_dir / f"{file}.csv")
    sections.append(recovery.recovery_markdown(pd.concat(tables["recovery"])))
    text = "\n\n".join(sections) + "\n"
    write_text(output_dir / "features.md", text)
    return text
