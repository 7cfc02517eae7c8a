"""The picture of the README, from docs/results/conflict_runs.csv.

python docs/images/result.py     # writes docs/images/result.png
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from routing_moe.pictures.dots import dot_panels
from routing_moe.pictures.style import DARK, save, series, styled

HERE = Path(__file__).resolve().parent
SHOWN = {
    "oracle": "the true routes",
    "cross_loss": "routes by cross-loss",
    "dense_8x": "one BART, 6.5 times the FLOPs",
    "dense_total": "one BART, 12 times the parameters (rate not tuned)",
    "dense_flops": "one BART, equal FLOPs",
    "learned": "the paper's router (not tuned), 1.6 times the FLOPs",
}


@styled
def result() -> Figure:
    """Returns a row of each variant at half conflict: a dot is a gym, a bar the mean."""
    runs = pd.read_csv(HERE.parent / "results/conflict_runs.csv")
    runs = runs[runs["place"] == "half"]
    scores = {name: runs.loc[runs["variant"] == name, "test"] for name in SHOWN}
    names = [f"{label}, n = {len(scores[name])}" for name, label in SHOWN.items()]
    figure, (axes,) = dot_panels(
        names, ["share of right test answers; a dot is a generated gym of 64 tasks"], 0.24, 2
    )
    for place, (name, style) in enumerate(zip(SHOWN, series(list(SHOWN)), strict=True)):
        axes.plot(scores[name], [place] * len(scores[name]), linestyle="", markersize=4, alpha=0.6, **style)
        axes.plot([scores[name].mean()] * 2, [place - 0.35, place + 0.35], color=DARK, linewidth=1.6)
        axes.annotate(f"{scores[name].mean():.2f}", (1.03, place), va="center", annotation_clip=False)
    axes.set_xlim(0.5, 1.02)
    return figure


if __name__ == "__main__":
    save(result(), HERE / "result.png")
