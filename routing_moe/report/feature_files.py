"""Writes the tables and pictures of correlations of routes with features of tasks."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from dataloader.atomic_files import write_text
from routing_moe.analysis.correlation import PERMUTATIONS, correlate, top_experts
from routing_moe.analysis.markdown import features_markdown, recovery_markdown
from routing_moe.analysis.recovery import PERMUTATIONS as RECOVERY_PERMUTATIONS
from routing_moe.analysis.recovery import recovery_table
from routing_moe.analysis.runs import ExplainedRun, notes_of, safe_name
from routing_moe.config.explain import CorrelateSettings
from routing_moe.plots.correlations import plot_correlations

DIGITS = "%.6g"


def write_feature_files(settings: CorrelateSettings, runs: Sequence[ExplainedRun], output_dir: Path) -> str:
    """Writes the tables and pictures; returns a summary as Markdown."""
    correlations, recovery = explain(runs, settings.permutations, settings.seed)
    output_dir.mkdir(parents=True, exist_ok=True)
    names = [run.name for run in runs]
    tops = [top_experts(table, settings.top) for table in correlations]
    for file, tables in (("correlations", correlations), ("top_experts", tops), ("recovery", recovery)):
        joint = pd.concat([t.assign(run=n) for n, t in zip(names, tables, strict=True)], ignore_index=True)
        columns = ["run", *(column for column in joint if column != "run")]
        write_text(output_dir / f"{file}.csv", joint[columns].to_csv(index=False, float_format=DIGITS))
    sections = [f"- {note}" for note in notes_of(runs)]
    for run, table, top in zip(runs, correlations, tops, strict=True):
        sections.append(features_markdown(run, table, top, settings.permutations or PERMUTATIONS))
        file = "correlations" if len(runs) == 1 else f"correlations_{safe_name(run.name)}"
        for kind in ("png", "pdf"):
            title = settings.title or f"{run.name}: correlation of routes and features"
            plot_correlations(table, run.routes, run.features, output_dir / f"{file}.{kind}", title)
    sections.append(recovery_markdown(names, recovery))
    text = "\n\n".join(sections) + "\n"
    write_text(output_dir / "features.md", text)
    return text


def explain(
    runs: Sequence[ExplainedRun], permutations: int | None = None, seed: int = 0
) -> tuple[list[pd.DataFrame], list[pd.DataFrame]]:
    """Returns (correlations, recovery), each a table per run."""
    correlations, recovery = [], []
    for run in tqdm(runs, "correlating", leave=False, unit="run"):
        of_run = (run.routes, run.features)
        correlations.append(correlate(*of_run, permutations or PERMUTATIONS, seed))
        recovery.append(recovery_table(*of_run, permutations or RECOVERY_PERMUTATIONS, seed))
    return correlations, recovery
