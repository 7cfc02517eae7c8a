"""Score one model on unseen tasks, each under the name of the train task that fits its labelled rows best.

    python example_scripts/methods/borrowed_names.py models/dense

This is what `--task_routes lowest_loss` does with the routes of a mixture. Writes the scores of the unseen
tasks in best/, with the prefix names-.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from find_groups import Tasks

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quickstart_results import borrowed_names

from dataloader.metrics import evaluate
from dataloader.task_splits import load_split
from routing_moe.results.scores import ScoresFile

SCORES = ScoresFile(section="test", prefix="names-")


def main(run: str) -> None:
    tasks, found = Tasks.of_run(run, seed=0), []
    gym, routed = tasks.gym, tasks.routed
    unseen = load_split(gym.folder / "split.json").test
    for task, name in borrowed_names(routed, gym, tasks.names, unseen).items():
        rows = gym.examples(task, "test", "first")
        answers = routed.answer(name, [row.input for row in rows])
        score = evaluate(answers, [row.outputs for row in rows], gym.metric(task))
        found.append((task, rows[0].sample, gym.metric(task), score, len(rows), np.nan))
    columns = ["task_prefix", "sample", "metric", "performance", "n", "constant"]
    pd.DataFrame(found, columns=columns).to_csv(Path(run) / SCORES.path)


if __name__ == "__main__":
    main(*sys.argv[1:])
