"""The change of routes between two checkpoints or stages: the route map of after - before.

plot_change(load_routes("models/moe", 500), load_routes("models/moe", 30000), Ontology.load(), "change.pdf")
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from dataloader.errors import in_short
from dataloader.ontology import Ontology
from routing_moe.analysis.saved_routes import Routes, encoder_part
from routing_moe.plots.route_map import route_map
from routing_moe.plots.style import HeatScale, check_picture_name, write_figure

COLOURS = "RdBu_r"  # distinct for the colour-blind, white at 0; red is more, as in all signed maps
ENDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the scale; smaller changes stay pale


def plot_change(
    before: Routes, after: Routes, ontology: Ontology, path: str | os.PathLike, title: str | None = None
) -> None:
    """Writes a map of weights gained (red) and lost (blue): PDF if `path` ends in .pdf, PNG if in .png.

    The scale ends at the smallest of ENDS that holds the largest change; the colour bar names it. The same
    routes give the same bytes. Raises ValueError if the two differ in tasks (their order does not matter),
    layers or number of experts, or the file name ends differently.
    """
    path = Path(path)
    check_picture_name(path)
    _check_comparable(before, after)
    change_NLE = after.of(before.tasks).values_NLE - before.values_NLE
    # Rows sum to 1 up to rounding: a change may be slightly above 1.
    end = next((end for end in ENDS if np.abs(change_NLE).max() <= end), 1.0)
    what = "change of weight" if end == 1 else f"change, scale ±{end:g}"
    picture = route_map(
        change_NLE, before.tasks, ontology, encoder_part(before.layers), title, before.layers,
        HeatScale(what, COLOURS, -end, end),
    )  # fmt: skip
    write_figure(picture.figure, path)


def _check_comparable(before: Routes, after: Routes) -> None:
    lost = [task for task in before.tasks if task not in set(after.tasks)]
    new = [task for task in after.tasks if task not in set(before.tasks)]
    if lost or new:
        raise ValueError(
            f"{before.name} and {after.name} are of different tasks; only one has {in_short(lost + new)}"
        )
    if before.layers != after.layers:
        there = [", ".join(routes.layers) for routes in (before, after)]
        raise ValueError(
            f"{before.name} and {after.name} have experts in different layers: {there[0]}; {there[1]}"
        )
    if before.experts != after.experts:
        raise ValueError(
            f"{before.name} has {before.experts} experts a layer, {after.name} has {after.experts}"
        )
