"""Tables of docs/results/conflict.md, from finished folders of compare_conflict.sh.

    python benchmarks/conflict_tables.py half=models/compare_conflict/conflict0.5 \\
        full=models/compare_conflict/conflict1 --output_dir docs/results

Each argument is PLACE=FOLDER; of folders of the same place, runs are collected. --earlier FILE adds the runs
of a conflict_runs.csv whose folders are gone. Writes conflict_runs.csv, a row for each run, and conflict.csv,
means over gyms:

ami, groups         agreement of the routes of train tasks with the skills; number of different routes
test, unseen        mean scores of train and unseen tasks
right               share of unseen tasks that take the expert of a group of mostly their skill
gflops              of all stages, with those for finding contested rows and groups
share               (variant - dense_flops) / (oracle - dense_flops), in means of test; share_low and
                    share_high are Fieller's interval over gyms; not of one BART
"""

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.jsonfile import load_json_object
from routing_moe.io.run_folder import GROUPS_FILE
from routing_moe.results.run_cost import read_cost
from routing_moe.results.scores import ScoresFile
from routing_moe.results.statistics import CONFIDENCE

TEST, UNSEEN = ScoresFile().path, ScoresFile(section="test").path
BASELINE, BEST = "dense_flops", "oracle"
MEANS = ["test", "unseen", "ami", "groups", "right", "steps", "gflops", "parameters"]
KEY = ["place", "variant"]
PLACES = ["full", "half", "quarter", "none", "rows24", "noise", "skills36"]  # in the order of rows
VARIANTS = [
    *("dense", "dense_flops", "dense_2x", "dense_4x", "dense_8x", "dense_total", "average", "learned"),
    *("softmax", "per_task", "per_task_shared", "cross_loss", "cross_loss_lora", "true_groups"),
    *("true_groups_shared", "oracle"),
]
POSITION = {name: position for position, name in enumerate(PLACES + VARIANTS)}


# ---- runs


def runs_of(place: str, folder: Path) -> pd.DataFrame:
    """Returns a row for each finished run of a folder of compare_conflict.sh."""
    recovery = pd.read_csv(folder / "recovery.csv").set_index(["variant", "seed"])
    rows = []
    for scores in sorted(folder.glob(f"runs/*/seed*/{TEST}")):
        run = scores.parents[1]
        variant, seed = run.parent.name, int(run.name.removeprefix("seed"))
        cost = read_cost(run)
        row = {"place": place, "variant": variant, "seed": seed, "steps": cost["steps_with_start"]}
        row |= {"gflops": cost["total_flops_with_start"] / 1e9, "parameters": cost["total_parameters"]}
        row["test"] = pd.read_csv(scores)["performance"].mean()
        if (variant, seed) in recovery.index:
            found = recovery.loc[(variant, seed)]
            row |= {"ami": found["ami"], "groups": found["clusters"]}
        if (run / UNSEEN).is_file():
            unseen = pd.read_csv(run / UNSEEN)
            row |= {
                "unseen": unseen["performance"].mean(),
                "right": right_share(run, folder / "gyms" / str(seed), unseen),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def right_share(run: Path, gym: Path, unseen: pd.DataFrame) -> float:
    """Returns the share of unseen tasks routed to a group of mostly their skill; NaN without such groups."""
    groups_file = run / "deltas/transfer" / GROUPS_FILE
    if not groups_file.is_file():
        return float("nan")
    skills = load_json_object(gym / "skill_routes.json", "the skills of tasks")
    groups = load_json_object(groups_file, "the groups of tasks")
    mostly = {}
    for group in set(groups.values()):
        own = Counter(skills[task] for task in groups if groups[task] == group)
        mostly[group] = own.most_common(1)[0][0]
    if len(mostly) == 1:
        return float("nan")
    chosen = [mostly[int(re.search(r"expert (\d+)", route)[1])] for route in unseen["route"]]
    return float(np.mean(unseen["task_prefix"].map(skills) == chosen))


# ---- means over gyms


def means_of(runs: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (place, variant), own in runs.groupby(KEY, sort=False):
        row = {"setting": f"{place}/{variant}", "place": place, "variant": variant, "n": len(own)}
        row |= own[MEANS].mean().to_dict()
        row |= {
            "test_std": own["test"].std(),
            "test_lowest": own["test"].min(),
            "ami_lowest": own["ami"].min(),
        }
        rows.append(row | share_of(runs[runs["place"] == place], variant))
    return pd.DataFrame(rows)


def share_of(runs: pd.DataFrame, variant: str) -> dict[str, float]:
    """Returns the share and its interval over the gyms that have all three; else {}."""
    tests = runs.pivot(index="seed", columns="variant", values="test")
    if not {BASELINE, BEST} <= set(tests) or variant == BEST or variant.startswith("dense"):
        return {}
    tests = tests[[variant, BASELINE, BEST]].dropna()
    if len(tests) < 2:
        return {}
    own, best = (tests[name] - tests[BASELINE] for name in (variant, BEST))
    if own.mean() <= 0 or best.mean() <= 0:
        return {}
    low, high = fieller(own.to_numpy(), best.to_numpy())
    return {"share": own.mean() / best.mean(), "share_low": low, "share_high": high}


def fieller(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Returns Fieller's interval of mean(a) / mean(b) for pairs; NaN where it is unbounded."""
    from scipy.stats import t

    square = t.ppf((1 + CONFIDENCE) / 2, len(a) - 1) ** 2 / len(a)
    (aa, ab), (_, bb) = np.cov(a, b) * square
    # The roots r of (mean(a) - r mean(b))² = square × variance(a - r b).
    leading, half, last = b.mean() ** 2 - bb, a.mean() * b.mean() - ab, a.mean() ** 2 - aa
    inside = half**2 - leading * last
    if leading <= 0 or inside < 0:
        return float("nan"), float("nan")
    return (half - inside**0.5) / leading, (half + inside**0.5) / leading


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="PLACE=FOLDER")
    parser.add_argument("--earlier", type=Path, help="a conflict_runs.csv with further runs")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the tables")
    values = parser.parse_args(argv)
    places = [folder.rpartition("=")[::2] for folder in values.folders]
    for _, folder in places:
        if not Path(folder, "recovery.csv").is_file():
            parser.error(f"{folder} has no recovery.csv, which compare_conflict.sh writes at its end")
    tables = [pd.read_csv(values.earlier)] if values.earlier else []
    tables += [runs_of(place, Path(folder)) for place, folder in places]
    runs = pd.concat(tables, ignore_index=True)
    runs = runs.sort_values([*KEY, "seed"], key=lambda column: column.map(POSITION).fillna(column))
    if runs.duplicated([*KEY, "seed"]).any():
        parser.error("two runs of a place have the same variant and seed")
    runs.round(6).to_csv(values.output_dir / "conflict_runs.csv", index=False)
    means = means_of(runs)
    means.round(6).to_csv(values.output_dir / "conflict.csv", index=False)
    print(means.round(3).to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
