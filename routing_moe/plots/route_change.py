"""The change of routes between two checkpoints or stages: the route map of after - before.

plot_change(load_routes("models/moe", 500), load_routes("models/moe", 30000), Ontology.load(), "change.pdf")
"""

from __future__ import annotations

import os

import numpy as np

from dataloader.ontology import Ontology
from routing_moe.analysis.saved_routes import Routes, encoder_part
from routing_moe.plots.route_map import plot_routes
from routing_moe.plots.style import HeatScale

COLOURS = "RdBu_r"  # distinct for the colour-blind, white at 0; red is more, as in all signed maps
ENDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the scale; smaller changes stay pale


def plot_change(
    before: Routes, after: Routes, ontology: Ontology, path: str | os.PathLike, title: str | None = None
) -> None:
    """Writes a map of weights gained (red) and lost (blue): PDF if `path` ends in .pdf, PNG if in .png.

    The scale ends at the smallest of ENDS that holds the largest change; the colour bar names it. The two
    have the same tasks, in any order, layers and number of experts, as those of `common_routes` do.
    """
    change_NLE = after.of(before.tasks).values_NLE - before.values_NLE
    # Rows sum to 1 up to rounding: a change may be slightly above 1.
    end = next((end for end in ENDS if np.abs(change_NLE).max() <= end), 1.0)
    name = "change of weight" if end == 1 else f"change, scale ±{end:g}"
    plot_routes(
        change_NLE, before.tasks, ontology, path, encoder_part(before.layers), title, before.layers,
        HeatScale(name, COLOURS, -end, end),
    )  # fmt: skip
