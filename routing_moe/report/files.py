"""Writes the tables and pictures of routes, and of their correlations with features of tasks."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.progress import ProgressBar
from routing_moe.analysis.correlation import correlate, top_experts
from routing_moe.analysis.recovery import recovery_markdown, recovery_table
from routing_moe.analysis.route_metrics import layer_table, neighbour_table, overlap, summary
from routing_moe.analysis.runs import ExplainedRun, file_names, notes_of
from routing_moe.analysis.saved_routes import expert_name
from routing_moe.config.explain import CorrelateSettings, InspectSettings
from routing_moe.pictures import heat_maps
from routing_moe.pictures.lines import plot_load
from routing_moe.pictures.style import save
from routing_moe.results.markdown import markdown_table, shown_p


def write_table(table: pd.DataFrame, path: Path) -> None:
    write_text(path, table.to_csv(index=False, float_format="%.6g"))


def write_route_files(settings: InspectSettings, runs: list[ExplainedRun], output_dir: Path) -> str:
    """Writes the tables and pictures; returns a summary as Markdown."""
    for run, name in zip(runs, file_names(runs), strict=True):
        folder = output_dir if len(runs) == 1 else output_dir / name
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
    tables: dict[str, list[pd.DataFrame]] = {"correlations": [], "top_experts": [], "recovery": []}
    sections = [f"- {note}" for note in notes_of(runs)]
    output_dir.mkdir(parents=True, exist_ok=True)
    names = file_names(runs)
    for run, name in zip(ProgressBar(runs, "correlating", unit="run"), names, strict=True):
        table = correlate(run.routes, run.features)
        top = top_experts(table, settings.top)
        recovery = recovery_table(1 - overlap(run.routes.values_NLE), run.features)
        for file, of_run in zip(tables, (table, top, recovery), strict=True):
            tables[file].append(of_run.assign(run=run.name))
        sections.append(features_markdown(run, top))
        file = "correlations" if len(runs) == 1 else f"correlations_{name}"
        title = settings.title or f"{run.name}: correlation of routes and features"
        save(heat_maps.plot_correlations(table, run.routes, run.features), output_dir / file, title)
    for file, of_runs in tables.items():
        joint = pd.concat(of_runs, ignore_index=True)
        write_table(joint[["run", *joint.columns.drop("run")]], output_dir / f"{file}.csv")
    sections.append(recovery_markdown(pd.concat(tables["recovery"]), "run"))
    text = "\n\n".join(sections) + "\n"
    write_text(output_dir / "features.md", text)
    return text


def features_markdown(run: ExplainedRun, top: pd.DataFrame) -> str:
    """Returns the rows of `top_experts` as Markdown, a line for each feature, in order of p."""
    if top.empty:
        return f"{run.name}: no feature has enough tasks with and without it, or all routes are the same."
    rows = {}
    for feature, experts in top.sort_values("p_holm", kind="stable").groupby("feature", sort=False):
        shown = ", ".join(f"{expert_name(e.layer, e.expert)} {e.r:.2f}" for e in experts.itertuples())
        tasks, p = int(experts["with_feature"].iloc[0]), shown_p(experts["p_holm"].iloc[0])
        rows[feature] = {"tasks": tasks, "top experts: r": shown, "p (Holm)": p}
    title = f"{run.routes.titled}: the experts whose weight correlates most with each feature"
    return f"{title}\n\n{markdown_table(rows, 'feature')}"
