"""The curves of a run for the report page: losses, scores, route statistics and optimizer state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.errors import InputError, in_short
from routing_moe.analysis.dynamics import ALL, dynamics_table
from routing_moe.analysis.saved_routes import load_history, steps_with_routes
from routing_moe.io.csv_files import check_numbers, read_table
from routing_moe.io.run_folder import CURVES_FILE

MOST_POINTS = 250  # of a curve
# {column: name of the curve}; entropies and information are shares of log E, distance is a share of weight
LOSSES = {
    "train_loss": "train loss",
    "dev_loss": "dev loss",
    "dev_performance": "mean dev score",
    "dev_answer_loss": "mean dev answer loss",
}
DYNAMICS = {
    "entropy": "route entropy",
    "load_entropy": "load entropy",
    "information": "information",
    "distance_to_final": "distance to last routes",
}
STEPPED = {"temperature": "temperature", "learning_rate": "learning rate", "grad_norm": "gradient norm"}


def curves_data(run: Path, kind: str = "soft") -> list[dict]:
    """Returns [{curve, steps, values}, ...] of the curves that the run folder has.

    kind: of routes. Raises InputError for a broken file.
    """
    curves = _curves(_read(run / "losses.csv", "steps"), "steps", LOSSES)
    if len(steps_with_routes(run)) > 1:
        table = dynamics_table(load_history(run, kind))
        curves += _curves(table[table["layer"] == ALL], "step", DYNAMICS)
    return curves + _curves(_read(run / CURVES_FILE, "step"), "step", STEPPED)


def _read(path: Path, steps: str) -> pd.DataFrame:
    """Returns the numbers by step; empty if the file is missing or still empty."""
    if not path.is_file() or not path.stat().st_size:
        return pd.DataFrame({steps: []})
    table = read_table(path)
    if steps not in table:
        raise InputError(f"{path} has no column {steps} (it has {in_short(list(map(str, table)))})")
    check_numbers(table, table, path)
    return table.astype(float)


def _curves(table: pd.DataFrame, steps: str, names: dict[str, str]) -> list[dict]:
    """Returns the columns with values, thinned evenly to MOST_POINTS steps."""
    table = table[np.isfinite(table[steps])]
    if table.empty:
        return []
    rows = np.unique(np.linspace(0, len(table) - 1, min(MOST_POINTS, len(table))).round().astype(int))
    table = table.iloc[rows]
    return [
        {
            "curve": name,
            "steps": [int(step) for step in table[steps]],
            "values": [rounded(value, 5) for value in table[column]],
        }
        for column, name in names.items()
        if column in table and table[column].notna().any()
    ]


def rounded(value, digits: int = 4) -> float | None:
    """Returns the value with this number of significant digits; None if it is not a finite number."""
    return float(f"{value:.{digits}g}") if pd.notna(value) and np.isfinite(value) else None
