"""The picture of docs/results/conflict.md, from conflict_runs.csv of conflict_tables.py.

    python benchmarks/conflict_picture.py docs/results/conflict_runs.csv docs/images/conflict.png

Mean scores of train and unseen tasks by level of conflict, and of train tasks by FLOPs at half conflict.
conflict_names.csv beside the runs adds one BART under fitting names.
A bar is the standard deviation over gyms.
"""

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

LEVELS = {"none": (0, "0"), "quarter": (0.25, "¼"), "half": (0.5, "½"), "full": (1, "1")}
STYLES = {  # {variant: (label, colour, marker)}, colours of Okabe and Ito
    "oracle": ("true routes", "#000000", "D"),
    "cross_loss": ("routes by cross-loss", "#0072B2", "o"),
    "dense_flops": ("one BART (equal FLOPs, except at the right)", "#D55E00", "s"),
    "learned": ("the paper's router, more FLOPs", "#CC79A7", "^"),
}
BUDGETS = ["dense", "dense_flops", "dense_2x", "dense_4x", "dense_8x"]


def at_levels(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    return runs.groupby(runs["place"].map(lambda place: LEVELS[place][0]))[column].agg(["mean", "std"])


def by_level(axes: Axes, runs: pd.DataFrame, column: str) -> None:
    for variant, (label, colour, marker) in STYLES.items():
        own = runs[(runs["variant"] == variant) & runs["place"].isin(LEVELS)]
        scores = at_levels(own, column)
        style = dict(label=label, color=colour, marker=marker, markersize=6, capsize=3)
        style |= dict(linestyle="--", markersize=4) if variant == "learned" else {}
        axes.errorbar(scores.index, scores["mean"], scores["std"], **style)
    measured = [level for place, level in LEVELS.items() if (runs["place"] == place).any()]
    axes.set_xticks(*zip(*measured, strict=True))
    axes.set_xlabel("share of contested inputs")


def fitting_names(axes: Axes, names: pd.DataFrame) -> None:
    scores = at_levels(names[names["variant"] == "dense_flops"], "fitting_name")
    _, colour, marker = STYLES["dense_flops"]
    style = dict(color=colour, marker=marker, markerfacecolor="white", linestyle="none", capsize=3)
    axes.errorbar(scores.index, scores["mean"], scores["std"], **style)


def by_flops(axes: Axes, runs: pd.DataFrame) -> None:
    """One BART at growing budgets, beside the others, on the gyms that have all budgets."""
    half = runs[runs["place"] == "half"]
    largest = [name for name in BUDGETS if name in set(half["variant"])][-1]
    half = half[half["seed"].isin(half[half["variant"] == largest]["seed"])]
    means = half.groupby("variant").agg(gflops=("gflops", "mean"), mean=("test", "mean"), std=("test", "std"))
    dense = means.reindex(BUDGETS).dropna(subset="mean")
    _, colour, marker = STYLES["dense_flops"]
    axes.errorbar(dense["gflops"], dense["mean"], dense["std"], color=colour, marker=marker, capsize=3)
    for variant in ("oracle", "cross_loss", "learned"):
        if variant in means.index:
            own, (_, colour, marker) = means.loc[variant], STYLES[variant]
            axes.errorbar(own["gflops"], own["mean"], own["std"], color=colour, marker=marker, capsize=3)
    axes.set_xscale("log", base=2)
    axes.set_xticks([64, 128, 256, 512], ["64", "128", "256", "512"])
    axes.set_xlabel("training GFLOPs")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", help="conflict_runs.csv")
    parser.add_argument("picture", help="file to write")
    values = parser.parse_args(argv)
    runs = pd.read_csv(values.runs)
    plt.rcParams["font.size"] = 11
    has_budgets = (runs["variant"] == "dense_2x").any()
    panels = 3 if has_budgets else 2
    figure, axes_of = plt.subplots(1, panels, figsize=(4 * panels, 4.2), sharey=True)
    train, unseen = axes_of[:2]
    by_level(train, runs, "test")
    by_level(unseen, runs, "unseen")
    if (names := Path(values.runs).with_name("conflict_names.csv")).is_file():
        fitting_names(unseen, pd.read_csv(names))
    if has_budgets:
        by_flops(axes_of[2], runs)
    train.set_ylabel("share of right answers")
    titles = ("train tasks", "unseen tasks", "train tasks, half conflict")
    for axes, title in zip(axes_of, titles, strict=False):
        axes.set_title(title)
        axes.set_ylim(0, 1.04)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *train.get_legend_handles_labels(), loc="lower center", ncols=4 if has_budgets else 2, frameon=False
    )
    figure.tight_layout(rect=(0, 0.08 if has_budgets else 0.12, 1, 1))
    figure.savefig(values.picture, dpi=110)
    return 0


if __name__ == "__main__":
    sys.exit(main())
