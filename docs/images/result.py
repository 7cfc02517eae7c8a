"""The picture of the README, from docs/results/methods_runs.csv.

python docs/images/result.py     # writes docs/images/result.png
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from routing_moe.pictures.dots import dot_panels
from routing_moe.pictures.style import DARK, save, series, styled

HERE = Path(__file__).resolve().parent
SHOWN = {
    "true_groups": "the true groups",
    "cross_loss": "groups by cross-loss",
    "softmax": "the paper's router, softmax weights, 1.8 times the FLOPs",
    "dense_total": "one BART, 12 times the parameters, 11 times the FLOPs",
    "dense_flops": "one BART, equal FLOPs",
    "straight_through": "the paper's router, straight-through choices",
    "mbc": "groups by weights of low-rank experts (MBC)",
    "random_groups": "random groups",
}


@styled
def result() -> Figure:
    """Returns a row of each method: a dot is a gym, a bar the mean."""
    runs = pd.read_csv(HERE.parent / "results/methods_runs.csv").query("width == 16")
    scores = {name: runs.loc[runs["method"] == name, "test"] for name in SHOWN}
    names = list(SHOWN.values())
    figure, (axes,) = dot_panels(
        names, ["share of right test answers; a dot is a gym of 64 generated tasks"], 0.24, 2
    )
    for place, (name, style) in enumerate(zip(SHOWN, series(list(SHOWN)), strict=True)):
        axes.plot(scores[name], [place] * len(scores[name]), linestyle="", markersize=4, alpha=0.6, **style)
        axes.plot([scores[name].mean()] * 2, [place - 0.35, place + 0.35], color=DARK, linewidth=1.6)
        axes.annotate(f"{scores[name].mean():.2f}", (1.03, place), va="center", annotation_clip=False)
    axes.set_xlim(0.5, 1.02)
    return figure


if __name__ == "__main__":
    save(result(), HERE / "result.png")
