"""Colours of the categories of tasks, the same in every picture and on the report page."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgb

from dataloader.ontology import UNCATEGORISED, Ontology
from routing_moe.plots.style import CATEGORY_COLOURS, UNKNOWN_COLOUR


def kind_colours(ontology: Ontology) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Returns a hue per category, under (category, ""), and a shade of it per (category, subcategory).

    They depend only on the ontology, so that a kind of task has the same colour in every picture.
    """
    colours = dict.fromkeys((UNCATEGORISED, (UNCATEGORISED[0], "")), to_rgb(UNKNOWN_COLOUR))
    for number, (category, subcategories) in enumerate(ontology.categories.items()):
        hue = np.array(to_rgb(CATEGORY_COLOURS[number % len(CATEGORY_COLOURS)]))
        colours[category, ""] = tuple(hue)
        for sub, darkness in zip(subcategories, _shades(len(subcategories)), strict=True):
            end = np.ones(3) if darkness < 0 else np.zeros(3)
            colours[category, sub] = tuple(hue + (end - hue) * abs(darkness))
    return colours


def _shades(count: int) -> list[float]:
    """Numbers from -0.7 (pale) to 0.6 (dark), every second one far from the last: neighbours must differ."""
    if count == 1:
        return [0.0]
    pale, dark = np.array_split(np.linspace(-0.7, 0.6, count), 2)
    return [float(half[index // 2]) for index in range(count) for half in [(pale, dark)[index % 2]]]
