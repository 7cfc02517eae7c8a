"""Write the tables of `compare_methods.sh`: the rates that were tried, and all runs at the best ones.

    python example_scripts/methods/collect.py models/compare_methods/conflict0.5

rates.csv: a row for each method and rate of FOLDER/tuning/METHOD/RATE/seedN, its mean dev score over n gyms;
chosen: the best of the rates with a score on all gyms that any method was tried on. methods.csv: a row for
each FOLDER/runs/METHOD/seedN.
"""

import math
import sys
from pathlib import Path

import pandas as pd
from sklearn.metrics import adjusted_mutual_info_score

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also without installation

from dataloader.atomic_files import write_text
from dataloader.jsonfile import load_json_object
from routing_moe.io.run_folder import load_run_settings
from routing_moe.results.run_cost import read_cost
from routing_moe.results.scores import ScoresFile, mean_score, read_scores

FOUND = ("deltas/transfer/groups.json", "groups/groups.json")  # the groups of a run
UNSEEN = [ScoresFile(section="test", prefix=prefix) for prefix in ("by_loss-", "names-", "")]


def score(run: Path, *files: ScoresFile) -> float | None:
    """Returns the mean score of the first of the files that a run has, None without one."""
    paths = [run / file.path for file in files if (run / file.path).is_file()]
    return mean_score(read_scores(paths[0])) if paths else None


def rates(folder: Path) -> pd.DataFrame:
    """Returns the table of the trials."""
    trials = [
        (run.parts[-3], float(run.parts[-2]), score(run, ScoresFile("dev")))
        for run in sorted(folder.glob("tuning/*/*/seed*/"))
    ]
    table = pd.DataFrame(trials, columns=["method", "rate", "dev"])
    table = table.groupby(["method", "rate"], as_index=False).agg(dev=("dev", "mean"), n=("dev", "count"))
    best = table[(table["n"] == table["n"].max()) & (table["n"] > 0)].groupby("method")["dev"].idxmax()
    return table.assign(chosen=table.index.isin(best))


def runs(folder: Path) -> pd.DataFrame:
    """Returns the table of the reported runs. A model that was merged has the cost of its library."""
    names = ["method", "seed", "rate", "dev", "test", "unseen", "ami", "silhouette", "advantage"]
    names += ["steps", "gflops", "parameters"]
    rows = []
    for run in sorted(folder.glob("runs/*/seed*/")):
        cost = read_cost(run) or read_cost(run / "library") or {}
        scores = [score(run, *files) for files in ([ScoresFile("dev")], [ScoresFile()], UNSEEN)]
        flops = cost.get("total_flops_with_start") or math.nan
        costs = cost.get("steps_with_start"), flops / 1e9, cost.get("total_parameters")
        settings = load_run_settings(run) or load_run_settings(run / "library") or {}
        which = run.parent.name, int(run.name.removeprefix("seed")), settings.get("learning_rate")
        rows.append((*which, *scores, *groups(folder, run), *costs))
    return pd.DataFrame(rows, columns=names)


def groups(folder: Path, run: Path) -> tuple[float | None, ...]:
    """Returns the AMI of the groups of a run with the skills, its silhouette and advantage, if any."""
    found = [path for name in FOUND for path in run.glob(name)]
    if not found:
        return None, None, None
    files = folder / f"gyms/{run.name[4:]}/skill_routes.json", found[0], found[0].with_name("transfer.json")
    skills, labels, how = (load_json_object(file, "the groups of tasks") for file in files)
    ami = adjusted_mutual_info_score([skills[task] for task in labels], list(labels.values()))
    return ami, how.get("silhouette"), how.get("advantage")


def main(place: str) -> None:
    folder = Path(place)
    tried, found = rates(folder), runs(folder)
    for name, table in (("rates", tried), ("methods", found)):
        write_text(folder / f"{name}.csv", table.round(6).to_csv(index=False))
    for method, rate in tried.loc[tried["chosen"], ["method", "rate"]].to_numpy():
        print(f"{method} {rate:g}")


if __name__ == "__main__":
    main(*sys.argv[1:])
