"""Score one model on unseen tasks under the names of the train tasks that fit their labelled rows best.

    python example_scripts/methods/fitting_names.py models/dense

The train rows of an unseen task's first sample are read under the name of each train task; the name of the
lowest mean loss is used for its test rows, as `--task_routes lowest_loss` does with the routes of a mixture.
Writes RUN/best/names-eval-test_tasks-test-performance.csv.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from find_groups import Tasks

from dataloader.encoding import encode
from dataloader.gym import Example
from dataloader.metrics import evaluate
from dataloader.task_splits import load_split
from routing_moe.answering.routed import Routed
from routing_moe.evaluation.route_losses import losses_along
from routing_moe.results.scores import ScoresFile
from routing_moe.task_choice.transfer import means_by_task

SCORES = ScoresFile(section="test", prefix="names-")


def fitting_names(routed: Routed, few: dict[str, list[Example]], names: list[str]) -> dict[str, str]:
    """Returns {unseen task: the one of names with the lowest loss on its few rows}."""
    tasks_R = np.repeat(np.arange(len(few)), [len(rows) for rows in few.values()])
    route_1LE, losses = torch.ones(1, routed.model.config.num_layers, 1), []
    for name in names:
        renamed = [replace(row, task=name) for rows in few.values() for row in rows]
        rows = encode(renamed, routed.tokenizer, routed.text_format, {name: 0})
        losses.append(losses_along(routed.model, rows, route_1LE, routed.accelerator)[:, 0])
    best_N = means_by_task(np.stack(losses, axis=1), tasks_R, len(few)).argmin(axis=1)
    return {task: names[best] for task, best in zip(few, best_N, strict=True)}


def main(run: str) -> None:
    tasks = Tasks.of_run(run, seed=0)
    gym, routed, found = tasks.gym, tasks.routed, []
    unseen = load_split(gym.folder / "split.json").test
    few = {task: gym.examples(task, "train", "first") for task in unseen}
    for task, name in fitting_names(routed, few, tasks.names).items():
        rows = gym.examples(task, "test", "first")
        answers = routed.answer(routed.task(name), [row.input for row in rows])
        score = evaluate(answers, [list(row.outputs) for row in rows], gym.metric(task))
        found.append((task, rows[0].sample, gym.metric(task), score, len(rows), np.nan))
    columns = ["task_prefix", "sample", "metric", "performance", "n", "constant"]
    pd.DataFrame(found, columns=columns).to_csv(Path(run) / SCORES.path)


if __name__ == "__main__":
    main(*sys.argv[1:])
