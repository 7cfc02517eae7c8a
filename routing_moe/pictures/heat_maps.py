"""Heat maps: routes and their changes, similarities of tasks, correlations, drops of scores by ablation.

A figure has sides of 1 inch, so that boxes (left, bottom, width, height) are in inches; `save` also writes
what is outside of it. So rows keep their height whatever their names are. N tasks, L layers, E experts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.cluster.hierarchy import dendrogram

from dataloader.ontology import Ontology
from routing_moe.analysis.features import Features
from routing_moe.analysis.route_metrics import cluster_tasks
from routing_moe.analysis.saved_routes import SavedRoutes, encoder_part
from routing_moe.pictures.style import DOTS, kind_colours, short, styled

MIXED = "0.35"  # a branch over several categories
STRIPS, GAP, TREE = 0.28, 0.06, 1.1  # inches: the strips of categories, between them and a map, the tree


@dataclass(frozen=True)
class Scale:
    """What the values of a heat map are, their colour map, and its ends."""

    name: str
    colours: str = "RdBu_r"  # distinct for the colour-blind, white in the middle
    low: float = -1.0
    high: float = 1.0


WEIGHTS = Scale("weight of the expert", "Blues", 0.0, 1.0)
OVERLAP = Scale("overlap of routes", "Blues", 0.0, 1.0)
COSINE = Scale("cosine similarity, centred")


# ---- parts


def draw_cells(figure: Figure, box: tuple, values_RC: np.ndarray, scale: Scale) -> Axes:
    """Draws a cell for each value: row r is from r to r + 1 downwards, column c from c to c + 1."""
    axes, (rows, columns) = figure.add_axes(box), values_RC.shape
    colours = dict(cmap=scale.colours, vmin=scale.low, vmax=scale.high)
    axes.imshow(values_RC, aspect="auto", interpolation="nearest", extent=(0, columns, rows, 0), **colours)
    axes.spines[:].set_visible(True)
    axes.set(xticks=[], yticks=[])
    return axes


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    row = axes.get_position().height / len(names)
    axes.set_yticks(np.arange(len(names)) + 0.5, map(short, names), fontsize=min(8.0, 49 * row))
    axes.tick_params(axis="y", length=0)


def draw_borders(line: Callable, kinds: Sequence[tuple]) -> None:
    """Draws a line (axes.axhline or axes.axvline) where the kind changes, thick if its first part does."""
    for place in range(1, len(kinds)):
        if kinds[place] != kinds[place - 1]:
            is_thick = kinds[place][0] != kinds[place - 1][0]
            line(place, color="0.45", linewidth=0.9 if is_thick else 0.35)


def add_kinds(heat: Axes, tasks: Sequence[str], ontology: Ontology, square: bool = False) -> Axes:
    """Draws the tasks' categories as a strip left of a map, which is returned, and above a square one."""
    kinds, colour_of = [ontology.category(task) for task in tasks], kind_colours(ontology)
    colours_N2 = np.array([[colour_of[category, ""], colour_of[category, sub]] for category, sub in kinds])
    left, bottom, width, height = heat.get_position().bounds
    image = dict(aspect="auto", interpolation="nearest")
    strips = [heat.figure.add_axes((left - STRIPS - GAP, bottom, STRIPS, height))]
    strips[0].imshow(colours_N2, extent=(0, 2, len(kinds), 0), **image)
    strips[0].axvline(1, color="white", linewidth=1.5)
    if square:
        strips.append(heat.figure.add_axes((left, bottom + height + GAP, width, STRIPS)))
        strips[1].imshow(colours_N2.swapaxes(0, 1), extent=(0, len(kinds), 2, 0), **image)
        strips[1].axhline(1, color="white", linewidth=1.5)
    for strip in strips:
        strip.spines[:].set_visible(False)
        strip.set(xticks=[], yticks=[])
    return strips[0]


def add_key(
    heat: Axes, scale: Scale, tasks: Sequence[str] = (), ontology: Ontology | None = None, away: float = 0.25
) -> None:
    """Draws the colour bar and the legend of the tasks' categories on the right of a map; away: inches."""
    place = heat.get_position()
    bar = heat.figure.add_axes((place.x1 + away, place.y1 - 0.26, 1.5, 0.12))
    colours = ScalarMappable(Normalize(scale.low, scale.high), scale.colours)
    ticks = [scale.low, (scale.low + scale.high) / 2, scale.high]
    heat.figure.colorbar(colours, bar, orientation="horizontal", ticks=ticks, format="%.3g")
    bar.set_title(scale.name, fontsize=8)
    if ontology is None:
        return
    colour_of, rows = kind_colours(ontology), {}
    for category, sub in map(ontology.category, tasks):
        rows[category, ""] = Patch(facecolor=colour_of[category, ""], label=category)
        if sub != category:  # else uncategorised
            rows[category, sub] = Patch(facecolor=colour_of[category, sub], label=f"   {sub}")
    sizes = dict(fontsize=8, borderpad=0, borderaxespad=0, handlelength=1, handleheight=1)
    legend = bar.legend(handles=rows.values(), loc="upper left", bbox_to_anchor=(0, -2.5), **sizes)
    for (_, sub), text in zip(rows, legend.get_texts(), strict=True):
        text.set_fontweight("normal" if sub else "bold")


def draw_by_expert(values_RC: np.ndarray, layers: Sequence[str], row: float, scale: Scale) -> Axes:
    """Draws a map whose columns are the experts of every layer. row: the height of one in inches."""
    rows, columns = values_RC.shape
    experts = columns // len(layers)
    # A layer is at least as wide as its name, and a column is visible.
    column = max(0.42 / experts, 0.2 if columns <= 60 else 0.09)
    axes = draw_cells(Figure(figsize=(1, 1)), (0, 0, column * columns, row * rows), values_RC, scale)
    for number, name in enumerate(layers):
        if number:
            is_decoder = number == encoder_part(layers)
            border = ("black", 2.5) if is_decoder else ("0.45", 0.6)
            axes.axvline(number * experts, color=border[0], linewidth=border[1])
        label = dict(xycoords=("data", "axes fraction"), textcoords="offset points", ha="center", fontsize=8)
        axes.annotate(name, ((number + 0.5) * experts, 1), (0, 12), va="bottom", **label)
        if rows > 40:
            axes.annotate(name, ((number + 0.5) * experts, 0), (0, -4), va="top", **label)
    if column >= 0.085:  # numbers would overlap in narrower columns
        numbers = np.arange(columns)
        axes.set_xticks(numbers + 0.5, numbers % experts, fontsize=min(6.5, 43 * column))
        axes.tick_params(axis="x", length=0, labeltop=True, labelbottom=False)
    return axes


# ---- pictures


@styled
def plot_routes(
    values_NLE, tasks: Sequence[str], layers: Sequence[str], ontology: Ontology, scale: Scale = WEIGHTS
) -> Figure:
    """Draws a row for each task and a column for each expert of every layer ("enc 0", ...)."""
    row = 0.2 if len(tasks) <= 30 else 0.155 if len(tasks) <= 120 else 0.135
    axes = draw_by_expert(np.reshape(values_NLE, (len(tasks), -1)), layers, row, scale)
    draw_borders(axes.axhline, [ontology.category(task) for task in tasks])
    name_rows(add_kinds(axes, tasks, ontology), tasks)
    add_key(axes, scale, tasks, ontology)
    return axes.figure


def plot_task_drops(table: pd.DataFrame, ontology: Ontology) -> Figure:
    """Draws `task_table` of ablation, the drop of each task's score by ablation of each expert."""
    tasks, layers = table["task"].unique(), table["layer"].unique()
    wide = table.pivot(index="task", columns=["layer", "expert"], values="drop").loc[tasks]
    drops_NLE = np.stack([wide[layer].to_numpy() for layer in layers], axis=1)
    end = max(0.01, float(np.nanmax(np.abs(drops_NLE))))
    return plot_routes(drops_NLE, tasks, layers, ontology, Scale("drop of the score", low=-end, high=end))


@styled
def plot_clustered(
    similarity_NN: np.ndarray,
    tasks: Sequence[str],
    ontology: Ontology,
    scale: Scale,
    values_NN: np.ndarray | None = None,
) -> Figure:
    """Draws similarities, or other values, in the order of a clustering by similarity, beside its tree.

    A branch has a category's colour if all of its tasks are of that category. NaN is grey.
    """
    tree, colour_of = cluster_tasks(similarity_NN, tasks, ontology), kind_colours(ontology)
    covered = [{ontology.category(task)[0]} for task in tasks]  # by each leaf, then by each branch
    for left, right in tree[:, :2].astype(int):
        covered.append(covered[left] | covered[right])

    def colour(branch: int) -> str:
        return to_hex(colour_of[*covered[branch], ""] if len(covered[branch]) == 1 else MIXED)

    side = len(tasks) * (0.16 if len(tasks) <= 30 else 0.125 if len(tasks) <= 60 else 0.1)
    # With many tasks, a PNG has more dots instead of more inches.
    figure, side = Figure(figsize=(1, 1), dpi=DOTS * max(1.0, side / 4)), min(4.0, max(2.0, side))
    beside = figure.add_axes((side + GAP, 0, TREE, side))
    leaves = dendrogram(tree, orientation="right", no_labels=True, link_color_func=colour, ax=beside)[
        "leaves"
    ]
    end = max(tree[:, 2].max(), 1e-6)
    # Joints of identical tasks, at 0, stay visible; the first row is on top.
    beside.set(xlim=(-0.02 * end, 1.03 * end), ylim=(10 * len(leaves), 0), yticks=[])
    beside.set_xlabel("1 − mean similarity\n(branch coloured: all\ntasks of one category)")
    beside.spines["left"].set_visible(False)
    beside.locator_params(axis="x", nbins=3)
    drawn_NN = np.asarray(similarity_NN if values_NN is None else values_NN)[np.ix_(leaves, leaves)]
    heat = draw_cells(figure, (0, 0, side, side), drawn_NN, scale)
    heat.set_facecolor("0.8")
    in_order = [tasks[leaf] for leaf in leaves]
    name_rows(add_kinds(heat, in_order, ontology, square=True), in_order)
    add_key(heat, scale, ontology.order(tasks), ontology, away=GAP + TREE + 0.25)
    return figure


def plot_transfer(losses_NN, affinity_NN, tasks: Sequence[str], ontology: Ontology) -> Figure:
    """Draws what the rows of each task save along the expert of each other task, in nats; red: they lose.

    losses_NN: mean losses of a task (row) along an expert (column), compared with the median of the row.
    Colours end at what 98% of the savings are below: one pair must not hide the others.
    """
    saved_NN = np.median(losses_NN, axis=1, keepdims=True) - losses_NN
    np.fill_diagonal(saved_NN, np.nan)  # an expert has read the rows of its own task
    end = float(np.nanpercentile(np.maximum(saved_NN, 0), 98)) or 1.0
    scale = Scale("nats saved per row (red: lost)", "RdBu", -end, end)
    return plot_clustered(affinity_NN, tasks, ontology, scale, saved_NN)


@styled
def plot_correlations(table: pd.DataFrame, routes: SavedRoutes, features: Features) -> Figure:
    """Draws r of `correlate`'s table."""
    names = [name for name in features.names if name in set(table["feature"])]
    row = table["feature"].map({name: number for number, name in enumerate(names)}).astype(int)
    layer = table["layer"].map({name: number for number, name in enumerate(routes.layers)}).astype(int)
    column = layer * routes.experts + table["expert"].astype(int)
    r_RC = np.full((max(1, len(names)), len(routes.layers) * routes.experts), np.nan)
    r_RC[row, column] = table["r"]
    scale = Scale("correlation r")
    axes = draw_by_expert(r_RC, routes.layers, 0.155, scale)
    axes.set_facecolor("0.85")
    draw_borders(axes.axhline, [(name.partition(":")[0],) for name in names])
    name_rows(axes, names or [""])
    add_key(axes, scale)
    return axes.figure
