"""Does affinity predict what two tasks gain from a joint expert?  Tables of study.sh's part `pairs`.

python example_scripts/pretrained/pairs.py models/pretrained docs/results

Writes pretrained_pairs.csv, a row for each pair of tasks, and pretrained_predictors.csv, one for each
predictor.
"""

import itertools
import json
import sys
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also without installation

from dataloader.task_splits import load_split
from routing_moe.model.task_vectors import load_task_vectors
from routing_moe.results.scores import ScoresFile
from routing_moe.results.statistics import holm, permutation_test
from routing_moe.task_choice.transfer import gains


def joint_gains(folder: Path) -> pd.Series:
    """Returns, for each pair of tasks, what a test row loses less with their joint expert than alone (nats).

    The mean of both tasks.
    """
    losses = pd.read_csv(folder / ScoresFile().path).set_index("task_prefix")["loss_per_answer"]
    tasks, found = [name for name in losses.index if "+" not in name], {}
    for one, other in itertools.combinations(tasks, 2):
        alone, joint = losses[[one, other]], losses[[f"{one}+{other}", f"{other}+{one}"]]
        found[one, other] = alone.mean() - joint.mean()
    return pd.Series(found)


def saved_along(folder: Path) -> pd.DataFrame:
    """Returns what rows of two tasks save along each other's expert, compared with the median expert."""
    tasks = list(pd.read_csv(folder / "transfer.csv", index_col="task").index)
    files = [folder / f"losses/{quote(task, safe='')}.npy" for task in tasks]
    losses_RM = np.stack([np.load(file) for file in files], axis=1)
    N = len(tasks)
    gains_NN = gains(losses_RM, np.repeat(np.arange(N), len(losses_RM) // N), N, np.arange(N))
    return pd.DataFrame((gains_NN + gains_NN.T) / 2, tasks, tasks)


def cosines(folder: Path) -> pd.DataFrame:
    """Returns the cosines of task vectors minus their mean."""
    tasks, vectors_ND = load_task_vectors(folder)
    centred_ND = vectors_ND - vectors_ND.mean(axis=0)
    unit_ND = centred_ND / np.linalg.norm(centred_ND, axis=1, keepdims=True)
    return pd.DataFrame(unit_ND @ unit_ND.T, tasks, tasks)


def predicted(out: Path, tasks: list[str]) -> dict[str, np.ndarray]:
    """Returns the similarities (T, T) of the tasks by each predictor."""
    found = {"cross_loss": saved_along(out / "pool/transfer")}
    found |= {name: cosines(out / "vectors" / name) for name in ("gradient", "text")}
    return {name: table.loc[tasks, tasks].to_numpy() for name, table in found.items()}


def spearman(similarity_TT: np.ndarray, gains_P: np.ndarray) -> tuple[float, float]:
    """Returns the correlation of ranks over pairs, and its two-sided p by all permutations of the tasks."""
    T = len(similarity_TT)
    places = np.triu_indices(T, 1)
    ranks_P = standardized(rankdata(gains_P))

    def correlation(orders: np.ndarray) -> np.ndarray:
        orders = orders.astype(int)
        values = similarity_TT[orders[..., places[0]], orders[..., places[1]]]
        return standardized(rankdata(values, axis=-1)) @ ranks_P / len(ranks_P)

    found = float(correlation(np.arange(T)))
    test = permutation_test(lambda orders: np.abs(correlation(orders)), np.arange(T), 50_000)
    return found, float(test.pvalue)


def standardized(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=-1, keepdims=True)) / values.std(axis=-1, keepdims=True)


def costs(out: Path, seed: str) -> dict[str, float]:
    """Returns the FLOPs of each predictor with the training that it needs, and of the pairs.

    A gradient is two forward passes more than the loss.
    """
    total = lambda folder: json.loads((folder / "cost.json").read_text())["total_flops"]  # noqa: E731
    compared = json.loads((out / "pool/transfer/transfer.json").read_text())
    row = compared["total_flops"] / (compared["experts"] + 3) / compared["rows"]
    train = load_split(out / "gyms/adapters/split.json").train
    files = [out / f"gyms/adapters/{task}/{task}_0_0_train.jsonl" for task in train]
    rows = sum(len(file.read_text().splitlines()) for file in files)
    return {
        "cross_loss": total(out / "pool") + compared["total_flops"],
        "gradient": total(out / "joint") + 3 * rows * row,
        "text": rows * row,
        "pairs": total(out / "pairs" / seed),
    }


def main(out: Path, target: Path) -> None:
    runs = [folder for folder in sorted(out.glob("pairs/seed*")) if (folder / ScoresFile().path).exists()]
    found = {folder.name: joint_gains(folder) for folder in runs}
    table = pd.DataFrame(found).rename_axis(["one", "other"])
    tasks = list(dict.fromkeys(itertools.chain(*table.index)))
    matrices, rows = predicted(out, tasks), []
    flops = costs(out, runs[0].name)
    for name, similarity_TT in matrices.items():
        row = {"predictor": name, "pairs": len(table), "seeds": len(runs)}
        row["flops_over_pairs"] = flops[name] / flops["pairs"]
        for seed, gains_P in found.items():
            row[seed] = spearman(similarity_TT, gains_P.to_numpy())[0]
        row["spearman"], row["p"] = spearman(similarity_TT, table.mean(axis=1).to_numpy())
        rows.append(row)
    predictors = pd.DataFrame(rows).assign(p_holm=lambda its: holm(its["p"]))
    for name, similarity_TT in matrices.items():
        table[name] = similarity_TT[np.triu_indices(len(tasks), 1)]
    if len(found) == 2:
        print("gains of both seeds:", round(float(pd.DataFrame(found).corr("spearman").iloc[0, 1]), 3))
    for name, its in (("pairs", table.reset_index()), ("predictors", predictors)):
        its.round(6).to_csv(target / f"pretrained_{name}.csv", index=False)
        print(its.round(3).to_string())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
