"""Tables and picture of the study with a pre-trained model, of what is finished.

python example_scripts/pretrained/tables.py models/pretrained docs/results   # the second: for tables

Scores that the tables have already are kept, so that runs of several machines can be added one after another.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also without installation

from routing_moe.pictures.dots import dot_panels
from routing_moe.pictures.style import BLUE, DARK, save, styled
from routing_moe.results.scores import ScoresFile
from routing_moe.results.statistics import AUTO, DESIGNS, detectable_effect, holm, mean_interval, t_of_mean

MEASURES = {"adapters": ["rank_accuracy", "loss"], "twins": ["rank_accuracy", "answer_loss"]}
METHODS = {  # passes over the 16 rows, forwards or backwards (two)
    **dict.fromkeys(["base", "mean", "ties"], 0),
    "nearest_text": 1,
    "lowest_loss": 17,
    **dict.fromkeys(["new", "mixed"], 120),
    "tuned": 137,
    "oracle": np.nan,
}
KEYS = {  # of tables of scores: what names a row
    "adapters_runs": ["task", "copy", "method", "rate", "what"],
    "twins_tasks": ["part", "arm", "seed", "task"],
    "twins_groups": ["arm", "seed"],
    "rates": ["method", "rate"],
}
CONTRASTS = {
    "adapters": [
        "lowest_loss nearest_text",
        "lowest_loss new",
        "tuned new",
        "mixed lowest_loss",
        "tuned base",
    ],
    "twins": [
        *["true_groups one_16", "true_groups random_groups", "per_task one_128", "per_task true_groups"],
        "cross_loss random_found",
    ],
    "few": ["true_groups per_task"],
    "unseen": ["cross_loss one_16", "true_groups one_16"],
}


def with_known(path: Path, found: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Returns the rows that were found, and those of the table that is there, without those found again."""
    tables = [*([pd.read_csv(path)] if path.exists() else []), *([found] if len(found) else [])]
    if not tables:
        return pd.DataFrame(columns=keys)
    rows = pd.concat(tables, ignore_index=True)
    return rows.drop_duplicates(keys, ignore_index=True)


# ---- adapters that exist


def adapter_runs(out: Path) -> pd.DataFrame:
    """Returns a row for each copy and method, and for each task and candidate."""
    names = sorted(path.stem for path in out.glob("gyms/unseen/tables/*-[123].jsonl"))
    files = [out / f"copies/{name}/losses.csv" for name in names]
    tables = [pd.read_csv(file) for file in files if file.exists()]
    if not tables:
        return pd.DataFrame()
    runs = pd.concat(tables, ignore_index=True)
    names = runs.pop("name").str.rpartition("-")
    runs.insert(0, "task", names[0])
    runs.insert(1, "copy", names[2].astype(int))
    tried = runs[runs["method"] == "candidate"]  # of the first copy: the test rows of all are the same
    others = [
        tried[tried["what"] == "(base)"].assign(method="base"),
        tried.loc[tried.groupby("task")["loss"].idxmin()].assign(method="oracle"),
    ]
    return pd.concat([runs, *others], ignore_index=True)


def adapter_table(wide: dict[str, pd.DataFrame], runs: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each method, by mean loss, with its difference from the first one."""
    order, rows = list(wide["loss"].mean().sort_values().index), []
    for name in order:
        row = {"method": name, "tasks": len(wide["loss"])}
        for measure, values in wide.items():
            differences = (values[name] - values[order[0]]).to_numpy()
            found = mean_interval(differences)
            ends = (np.nan,) * 3 if name == order[0] else (differences.mean(), found.low, found.high)
            row |= {measure: values[name].mean()}
            row |= dict(
                zip([f"{measure}_{part}" for part in ("minus_first", "low", "high")], ends, strict=True)
            )
        row |= {"passes": METHODS[name], "seconds": runs.loc[runs["method"] == name, "seconds"].mean()}
        rows.append(row)
    return pd.DataFrame(rows)


SHOWN = {
    "new": "train a new adapter",
    "tuned": "train the one of lowest loss",
    "mixed": "learn a mixture",
    "oracle": "lowest loss on test rows",
    "lowest_loss": "lowest loss on the 16 rows",
    "mean": "mean of all",
    "ties": "TIES of all",
    "nearest_text": "nearest texts",
    "base": "no adapter",
}


@styled
def adapter_picture(wide: dict[str, pd.DataFrame]):
    """Draws a row for each method, a dot for each task; filled where one of the adapters nearly fits."""
    order = list(wide["loss"].mean().sort_values().index)
    fits = wide["loss"]["oracle"] < 1
    headings = ["rank accuracy", "loss of a row, nats (logarithmic)"]
    figure, panels = dot_panels([SHOWN[name] for name in order], headings, 0.22, 2.4)
    for axes, values in zip(panels, wide.values(), strict=True):
        for place, name in enumerate(order):
            for style, chosen in (("full", fits), ("none", ~fits)):
                dots = dict(color=BLUE, markersize=4, fillstyle=style, linestyle="", marker="o")
                axes.plot(values.loc[chosen, name], [place] * chosen.sum(), **dots)
            axes.plot([values[name].mean()] * 2, [place - 0.35, place + 0.35], color=DARK, linewidth=1.6)
    panels[1].set_xscale("log")
    panels[1].set_xticks([0.3, 1, 3, 10, 30], ["0.3", "1", "3", "10", "30"])
    panels[1].minorticks_off()
    return figure


# ---- twins


def twin_scores(out: Path, part: str) -> pd.DataFrame:
    """Returns the scores of each arm, seed and pair: the means of both twins."""
    gym = "twins" if part == "unseen" else part
    twin_of, rows = json.loads((out / f"gyms/{gym}/twins.json").read_text()), []
    for folder in sorted(out.glob(f"{gym}/*/seed*")):
        scored = dict(section="test", prefix="by_loss-") if part == "unseen" else {}
        path = folder / ScoresFile(**scored).path
        if path.exists():
            scores = pd.read_csv(path)
            scores["task"] = [twin_of[name][0] for name in scores["task_prefix"]]
            scores = scores.groupby("task", as_index=False)[MEASURES["twins"]].mean()
            rows.append(scores.assign(part=part, arm=folder.parts[-2], seed=int(folder.name[4:])))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["arm"])


def group_table(out: Path) -> pd.DataFrame:
    """Returns, for each seed, how many pairs groups separate, and how well they agree with the true ones."""
    from sklearn.metrics import adjusted_mutual_info_score as ami

    twin_of, rows = json.loads((out / "gyms/twins/twins.json").read_text()), []
    true = json.loads((out / "gyms/twins/true.json").read_text())
    for folder in sorted(out.glob("twins/*/seed*")):
        config = folder / "best/checkpoint.json"
        if (
            folder.parts[-2] not in ("cross_loss", "cross_options", "random_found", "random_groups")
            or not config.exists()
        ):
            continue
        groups = groups_of(folder)
        pairs: dict[str, set] = {}
        for name in true:
            pairs.setdefault(twin_of[name][0], set()).add(groups[name])
        separated = sum(len(its) == 2 for its in pairs.values())
        row = dict(arm=folder.parts[-2], seed=int(folder.name[4:]), groups=len(set(groups.values())))
        agreement = ami([true[name] for name in true], [groups[name] for name in true])
        row |= dict(pairs=len(pairs), separated=separated, ami=agreement)
        if folder.parts[-2] == "cross_loss":
            said = json.loads((out / f"twins/per_task/{folder.name}/transfer/transfer.json").read_text())
            row |= {key: said[key] for key in ("advantage", "agreement")}
        rows.append(row | {"members": " ".join(str(groups[name]) for name in sorted(groups))})
    return pd.DataFrame(rows)


def groups_of(folder: Path) -> dict[str, int]:
    from routing_moe import Routed

    routed = Routed.load(str(folder))
    return {
        name: int(np.asarray(routed.task(name).route_LE)[0].argmax())
        for name in routed.model.config.trained_tasks
    }


# ---- contrasts


def contrasts(part: str, scores: pd.DataFrame) -> list[dict]:
    rows, measures = [], MEASURES["adapters" if part == "adapters" else "twins"]
    for words, measure in itertools.product(CONTRASTS[part], measures):
        arms = words.split()
        if not set(arms) <= set(scores["arm"]):
            continue
        wide = scores.pivot_table(index="seed", columns=["arm", "task"], values=measure)
        values_ST = (wide[arms[0]] - wide[arms[1]]).dropna().to_numpy()
        seeds, tasks = values_ST.shape
        found = interval(values_ST)
        row = dict(part=part, contrast=" - ".join(arms), measure=measure, seeds=seeds, tasks=tasks)
        rows.append(row | dict(difference=values_ST.mean()) | found)
    return rows


def interval(values_ST: np.ndarray) -> dict[str, float | str]:
    """Returns that of `mean_interval`; of four pairs, for which it has none, the same by its functions.

    With one seed of four pairs there is none.
    """
    from scipy.stats import t

    found = mean_interval(values_ST, AUTO)
    if not np.isnan(found.p) or len(values_ST) == 1:
        return {key: getattr(found, key) for key in ("low", "high", "p", "detectable", "over")}
    design = "seeds_and_tasks" if len(values_ST) > 4 else "seeds"
    mean, error, df = map(float, t_of_mean(values_ST, design))
    half, p = error * t.ppf(0.975, df), 2 * t.sf(abs(mean) / error, df)
    ends = dict(low=mean - half, high=mean + half, p=p, detectable=detectable_effect(error, df))
    return ends | {"over": DESIGNS[design]}


def main(out: Path, target: Path) -> None:
    path = {name: target / f"pretrained_{name}.csv" for name in KEYS}
    runs = with_known(path["adapters_runs"], adapter_runs(out), KEYS["adapters_runs"])
    means = runs[runs["method"] != "candidate"].groupby(["method", "task"])[MEASURES["adapters"]].mean()
    wide = {measure: means[measure].unstack("method") for measure in MEASURES["adapters"]}
    tables = {"adapters_runs": runs, "adapters": adapter_table(wide, runs)}
    save(adapter_picture(wide), target.parent / "images/pretrained.png")
    scores = means.reset_index().rename(columns={"method": "arm"}).assign(seed=0)
    found = [pd.DataFrame(contrasts("adapters", scores))]
    parts = [twin_scores(out, part) for part in ("twins", "few", "unseen")]
    found_now = pd.concat([pd.DataFrame(), *(table for table in parts if len(table))], ignore_index=True)
    twins = with_known(path["twins_tasks"], found_now, KEYS["twins_tasks"])
    of_parts = twins.groupby("part", sort=False)
    family = pd.DataFrame([row for part, its in of_parts for row in contrasts(part, its)])
    if len(family):
        found.append(family)
        tables["twins_tasks"] = twins
        seeds = twins.groupby(["part", "arm"])["seed"].transform("nunique")
        complete = twins[seeds == twins.groupby("part")["seed"].transform("nunique")]
        tables["twins"] = complete.groupby(["part", "arm"], as_index=False)[MEASURES["twins"]].mean()
        tables["twins_groups"] = with_known(path["twins_groups"], group_table(out), KEYS["twins_groups"])
    tables["contrasts"] = pd.concat(
        [table.assign(p_holm=holm(table["p"])) for table in found], ignore_index=True
    )
    rates = [out / "tuning/rates.csv", out / "copies/rates.csv"]
    tried = [pd.read_csv(file).rename(columns={"arm": "method"}) for file in rates if file.exists()]
    tables["rates"] = with_known(path["rates"], pd.concat([pd.DataFrame(), *tried]), KEYS["rates"])
    for name, table in tables.items():
        table.round(6).to_csv(target / f"pretrained_{name}.csv", index=False)
        if len(table) < 60:
            print(name, table.round(3).to_string(), sep="\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
