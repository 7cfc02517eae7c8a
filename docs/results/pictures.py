"""The pictures of docs/results/, from the CSV files there, in the colours of `routing_moe.pictures`.

python docs/results/pictures.py     # writes docs/images/*.png
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dataloader.ontology import Ontology
from routing_moe.pictures.dots import plot_comparison
from routing_moe.pictures.heat_maps import plot_transfer
from routing_moe.pictures.style import DARK, WIDTH, add_legend, save, series, styled
from routing_moe.task_choice.transfer import affinity

HERE = Path(__file__).resolve().parent
PROTOCOLS, IMAGES = HERE / "protocols", HERE.parent / "images"
LEVELS = {"none": (0, "0"), "quarter": (0.25, "¼"), "half": (0.5, "½"), "full": (1, "1")}
SHOWN = {
    "oracle": "true routes",
    "cross_loss": "routes by cross-loss",
    "dense_flops": "one BART (left, middle: equal FLOPs)",
    "learned": "the paper's router (untuned, more FLOPs)",
}
BUDGETS = ["dense", "dense_flops", "dense_2x", "dense_4x", "dense_8x"]
STYLES = dict(zip(SHOWN, series(list(SHOWN)), strict=True))


def means(runs: pd.DataFrame, by, column: str) -> pd.DataFrame:
    return runs.groupby(by)[column].agg(["mean", "std"]).fillna(0)


def level_of(runs: pd.DataFrame) -> pd.Series:
    return runs["place"].map(lambda place: LEVELS[place][0])


@styled
def conflict() -> Figure:
    runs, names = pd.read_csv(HERE / "conflict_runs.csv"), pd.read_csv(HERE / "conflict_names.csv")
    figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    bars = dict(capsize=2, linewidth=1, markersize=4)
    for axes, column in zip(panels, ("test", "unseen"), strict=False):
        for name, label in SHOWN.items():
            own = runs[(runs["variant"] == name) & runs["place"].isin(LEVELS)]
            scores = means(own, level_of(own), column)
            axes.errorbar(scores.index, scores["mean"], scores["std"], label=label, **bars, **STYLES[name])
        axes.set_xticks(*zip(*LEVELS.values(), strict=True))
        axes.set_xlabel("share of contested inputs")
    borrowed = names[names["variant"] == "dense_flops"]
    scores = means(borrowed, level_of(borrowed), "fitting_name")
    hollow = STYLES["dense_flops"] | dict(
        markerfacecolor="white", markeredgecolor=STYLES["dense_flops"]["color"]
    )
    label = "one BART, names chosen by loss on 16 rows"
    panels[1].errorbar(
        scores.index, scores["mean"], scores["std"], linestyle="", label=label, **bars, **hollow
    )
    half = runs[runs["place"] == "half"]
    half = half[half["seed"].isin(half[half["variant"] == "dense_8x"]["seed"])]
    dense = half[half["variant"].isin(BUDGETS)]
    for _, gym in dense.sort_values("gflops").groupby("seed"):
        panels[2].plot(
            gym["gflops"], gym["test"], color=STYLES["dense_flops"]["color"], linewidth=0.4, alpha=0.6
        )
    dense = dense.groupby("variant")[["gflops", "test"]].mean().sort_values("gflops")
    panels[2].plot(dense["gflops"], dense["test"], linewidth=1, markersize=4, **STYLES["dense_flops"])
    for name in ("oracle", "cross_loss", "learned"):
        own = half[half["variant"] == name]
        spread = means(own, "variant", "test").iloc[0]
        panels[2].errorbar(own["gflops"].mean(), spread["mean"], spread["std"], **bars, **STYLES[name])
    wide = half[half["variant"] == "dense_total"]
    spread = means(wide, "variant", "test").iloc[0]
    mark = hollow | dict(marker="P", label="one BART of 12 times the parameters")
    panels[2].errorbar(wide["gflops"].mean(), spread["mean"], spread["std"], linestyle="", **bars, **mark)
    panels[2].set_xscale("log", base=2)
    panels[2].set_xticks([64, 128, 256, 512], ["64", "128", "256", "512"])
    panels[2].set_xlabel("training GFLOPs")
    panels[0].set_ylabel("share of right answers")
    for axes, title in zip(
        panels, ("train tasks", "unseen tasks", "train tasks, half contested"), strict=True
    ):
        axes.set_title(title)
        axes.set_ylim(0, 1.04)
    add_legend(figure)
    return figure


@styled
def real_tasks() -> Figure:
    table = pd.read_csv(HERE / "real_tasks.csv")
    kinds = {"nats per token": "Answer loss (nats per token): lower is better"}
    kinds |= {"rank accuracy": "Rank accuracy (share of rows): higher is better"}
    rows = [table[table["measure"] == kind] for kind in kinds]
    figure = Figure(figsize=(WIDTH, 0.4 + 0.165 * len(table) + 1.0), layout="constrained")
    panels = figure.subplots(2, 1, height_ratios=[len(own) for own in rows])
    for axes, own, title in zip(panels, rows, kinds.values(), strict=True):
        axes.set_title(title)
        axes.set_yticks(range(len(own)), own["contrast"])
        axes.set_ylim(len(own) - 0.4, -0.6)
        axes.axvline(0, color=DARK, linewidth=0.7)
        for place, row in enumerate(own.itertuples()):
            band = dict(
                height=0.8, color="0.9", zorder=0, label="true differences found less than 4 times of 5"
            )
            axes.barh(place, 2 * row.detectable, left=-row.detectable, **band)
            two_way = row.seeds == row.seeds and row.tasks == row.tasks
            line = dict(color=DARK, linewidth=1.4 if two_way else 0.6, zorder=2)
            line["label"] = f"95% interval over {'seeds and tasks' if two_way else 'seeds or tasks alone'}"
            axes.plot([row.low, row.high], [place] * 2, **line)
            is_claim = row.claim == "gain"
            mark = dict(color=DARK, marker="o", markersize=4, linestyle="", zorder=3)
            mark |= dict(label="gain") if is_claim else dict(markerfacecolor="white", label="no claim")
            axes.plot([row.difference], [place], **mark)
    add_legend(figure)
    return figure


@styled
def real_routes_curves() -> Figure:
    curves = pd.read_csv(PROTOCOLS / "real_routes_curves.csv")
    groups = pd.read_csv(PROTOCOLS / "real_long_curves.csv")
    curves = pd.concat([curves, groups[groups["variant"].isin(["gradient", "random_1"])]])
    curves = curves[curves["seed"] != 42]  # its runs chose the rates
    figure = Figure(figsize=(WIDTH * 0.7, 2.8), layout="constrained")
    axes = figure.subplots()
    names = list(curves["variant"].unique())
    for name, style in zip(names, series(names), strict=True):
        rows = curves[curves["variant"] == name]
        rows = rows[rows["rate"] == (2.5e-4 if name == "multitask" else 1.25e-4)].assign(
            step=rows["step"] + 240
        )
        for _, run in rows.groupby("seed"):
            axes.plot(run["step"], run["dev_answer_loss"], color=style["color"], linewidth=0.4, alpha=0.6)
        mean = rows.groupby("step")["dev_answer_loss"].mean()
        axes.plot(mean, linewidth=1.2, markersize=3.5, label=name, **style)
    axes.set_xlabel("training steps, of which 240 of one BART")
    axes.set_ylabel("mean dev answer loss (nats per token)")
    add_legend(figure)
    return figure


@styled
def conflict_curves() -> Figure:
    runs, names = (
        pd.read_csv(PROTOCOLS / "conflict_curves.csv"),
        ["dense", "dense_flops", "clusters", "refined", "oracle"],
    )
    titles = {
        "rows": "train rows of a task",
        "label_noise": "share of wrong labels",
        "overlap": "share of a second skill",
    }
    figure = Figure(figsize=(WIDTH, 4), layout="constrained")
    panels = figure.subplots(2, 3, sharey="row", sharex="col")
    for (what, title), column in zip(titles.items(), panels.T, strict=True):
        for axes, measure in zip(column, ("ami", "score"), strict=True):
            for name, style in zip(names, series(names), strict=True):
                rows = runs[(runs["what"] == what) & (runs["variant"] == name)].dropna(subset=measure)
                points = np.log2(rows["value"]) if what == "rows" else rows["value"]
                axes.plot(points, rows[measure], **style | dict(linestyle="", markersize=2.5, alpha=0.6))
                mean = rows[measure].groupby(points).mean()
                axes.plot(mean, linewidth=1.2, markersize=4, label=name, **style)
        column[1].set_xlabel(title)
        if what == "rows":
            column[1].set_xticks(np.log2([12, 24, 48, 96]), ["12", "24", "48", "96"])
    panels[0, 0].set_ylabel("AMI of routes and skills")
    panels[1, 0].set_ylabel("mean test score")
    add_legend(figure)
    return figure


def compare_routings() -> Figure:
    runs = pd.read_csv(PROTOCOLS / "compare_routings_runs.csv")
    return plot_comparison(runs, pd.read_csv(PROTOCOLS / "compare_routings.csv"), "mean test score")


def transfer() -> Figure:
    table = pd.read_csv(PROTOCOLS / "skill_gym_transfer.csv", index_col="task").drop(columns="group")
    losses_NN, names = table.loc[table.columns].to_numpy(), list(table.columns)
    medians_N1 = np.median(losses_NN, axis=1, keepdims=True)
    gains_NN = np.maximum(medians_N1 - losses_NN, 0)
    np.fill_diagonal(gains_NN, np.nan)
    ontology = Ontology.load(
        "data/skill_gym/ontology.json"
    )  # of `routing-moe skill-gym --output_dir data/skill_gym`
    return plot_transfer(losses_NN, affinity(gains_NN), names, ontology)


if __name__ == "__main__":
    for draw in (conflict, real_tasks, real_routes_curves, conflict_curves, compare_routings, transfer):
        title = "Rows gain along columns" if draw is transfer else None
        save(draw(), IMAGES / f"{draw.__name__}.png", title)
