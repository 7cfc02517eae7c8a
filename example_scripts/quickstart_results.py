#!/usr/bin/env python3
"""Prints what the runs of quickstart.sh have learned: scores beside those of published gyms, answers, groups.

    python example_scripts/quickstart_results.py models/quickstart data/small_gym

Writes table.csv, the mean scores over tasks, beside the runs.
"""

import argparse
import dataclasses
import math
import sys
from pathlib import Path

from command import ROOT

sys.path.insert(0, str(ROOT))

import pandas as pd
import torch
from sklearn.metrics import adjusted_mutual_info_score

from dataloader import Gym, evaluate
from dataloader.encoding import encode
from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object
from dataloader.task_splits import load_split
from routing_moe import Routed
from routing_moe.config.console import reporting_errors
from routing_moe.evaluation.route_losses import losses_along
from routing_moe.io.logs import start_logging
from routing_moe.results.markdown import markdown_table
from task.conflict_gym.settings import GymSettings
from task.conflict_gym.skills import Skills, draw_skills
from task.written_folder import saved_settings

RESULTS = ROOT / "docs/results"
PUBLISHED = {  # names of conflict.csv, with a BART of as many parameters and steps
    "one_bart": "half/dense",
    "one_bart_flops": "half/dense_flops",
    "learned": "half/learned",
    "cross_loss": "half/cross_loss",
}
BORROWED = "borrowed name"  # of the BART that has the FLOPs of cross_loss


def scores_of(run: Path) -> dict[str, float]:
    """Returns the mean scores of a run on new rows of its train tasks, and on unseen tasks."""
    files = {"test": "eval-test-performance.csv", "unseen": "eval-test_tasks-test-performance.csv"}
    return {name: pd.read_csv(run / "best" / file)["performance"].mean() for name, file in files.items()}


def borrowed_names(bart: Routed, gym: Gym, names: list[str], unseen: list[str]) -> dict[str, str]:
    """Returns {unseen task: the train task under whose name its labelled rows have the lowest loss}.

    names: of the train tasks. Raises InputError for a model that does not read names.
    """
    if bart.text_format.hide_task_names:
        raise InputError("a model that was trained with --hide_task_names has no names to borrow")
    ids = {name: number for number, name in enumerate(names)}
    the_only_KLE = torch.ones(1, bart.model.config.num_layers, 1)
    found = {}
    for task in unseen:
        rows = gym.examples(task, "train", "first")
        read = [dataclasses.replace(row, task=name) for name in names for row in rows]
        encoded = encode(read, bart.tokenizer, bart.text_format, ids)
        losses = losses_along(bart.model, encoded, the_only_KLE, bart.accelerator)
        found[task] = names[losses.reshape(len(names), len(rows)).mean(axis=1).argmin()]
    return found


def borrowed_scores(bart: Routed, gym: Gym, names: list[str], unseen: list[str]) -> pd.DataFrame:
    """Returns a row of eval-*-performance.csv for each unseen task, read under its borrowed name."""
    found = []
    for task, name in borrowed_names(bart, gym, names, unseen).items():
        rows, metric = gym.examples(task, "test", "first"), gym.metric(task)
        answers = bart.answer(name, [row.input for row in rows])
        score = evaluate(answers, [row.outputs for row in rows], metric)
        found.append((task, rows[0].sample, metric, score, len(rows), math.nan))
    columns = ["task_prefix", "sample", "metric", "performance", "n", "constant"]
    return pd.DataFrame(found, columns=columns)


def score_table(folder: Path, borrowed: float) -> pd.DataFrame:
    """Returns a row for each run, n = 1, with the means of the published gyms."""
    published = pd.read_csv(RESULTS / "conflict.csv").set_index("setting")
    names = pd.read_csv(RESULTS / "conflict_names_means.csv").set_index("setting")
    rows = {}
    for run, setting in PUBLISHED.items():
        gyms = published.loc[setting]
        rows[run] = {"n": 1, **scores_of(folder / run)}
        rows[run] |= {"gyms": int(gyms["n"]), "gyms_test": gyms["test"], "gyms_unseen": gyms["unseen"]}
    gyms = names.loc["half/dense_flops"]
    row = {"n": 1, "unseen": borrowed, "gyms": int(gyms["gyms"]), "gyms_unseen": gyms["fitting_name"]}
    table = pd.DataFrame.from_dict(rows | {BORROWED: row}, orient="index")
    return table.loc[["one_bart", "one_bart_flops", BORROWED, "learned", "cross_loss"]]


def skills_table(
    gym: Gym, skills: Skills, skill_of: dict[str, int], groups: dict[str, int], models: dict[str, Routed]
) -> str:
    """Returns a table of the groups found for the tasks of each skill, and of answers to one input.

    The input is the first contested test row of a task that no first task of a skill was trained on.
    """
    tasks_of = [[task for task in skill_of if skill_of[task] == skill] for skill in range(skills.count)]
    first = [tasks[0] for tasks in tasks_of]
    number = {word: index for index, word in enumerate(skills.words)}
    trained = {row.input for task in first for row in gym.examples(task, "train")}
    inputs = [row.input for row in gym.examples(first[0], "test") if row.input not in trained]
    text = next(text for text in inputs if number[text.split()[0]] < skills.contested)
    words = tuple(number[word] for word in text.split())

    rows, right = {}, dict.fromkeys(models, 0)
    for skill, tasks in enumerate(tasks_of):
        expected = skills.words[skills.answer(skill, words)]
        answers = {name: model.answer(tasks[0], [text])[0] for name, model in models.items()}
        for name, answer in answers.items():
            right[name] += answer == expected
        found = " ".join(str(groups[task]) for task in tasks)
        rows["e{} d{}".format(*skills.parts(skill))] = {
            "its tasks": " ".join(tasks),
            "groups found": found,
            "answer": expected,
            **answers,
        }
    ami = adjusted_mutual_info_score(list(skill_of.values()), [groups[task] for task in skill_of])
    counts = ", ".join(f"{name} {count}" for name, count in right.items())
    found = f"Tasks were divided into {len(set(groups.values()))} groups; {skills.count} skills are true"
    return f"""{found} (adjusted mutual information {ami:.3f}; 1: equal, 0: chance).
Answers to "{text}" in the first task of each skill, new there; right of {skills.count}: {counts}.

{markdown_table(rows, "true skill")}"""


def main(folder: Path, gym_folder: Path) -> None:
    start_logging()
    gym = Gym(gym_folder)
    skills = draw_skills(GymSettings(output_dir=gym.folder, **saved_settings(GymSettings, gym.folder)))
    split = load_split(gym.folder / "split.json")
    skill_of = load_json_object(gym.folder / "skill_routes.json", "the skills of a conflict gym")
    skill_of = {task: skill_of[task] for task in split.train}
    bart, mixture = Routed.load(folder / "one_bart_flops"), Routed.load(folder / "cross_loss")
    table = score_table(folder, borrowed_scores(bart, gym, split.train, split.test)["performance"].mean())
    table.to_csv(folder / "table.csv", index_label="variant")
    print(markdown_table(table.rename_axis("variant")), end="\n\n")
    groups = load_json_object(folder / "cross_loss/deltas/transfer/groups.json", "the groups of transfer")
    print(skills_table(gym, skills, skill_of, groups, {"one_bart_flops": bart, "cross_loss": mixture}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the four runs")
    parser.add_argument("gym", type=Path, help="their gym, in which half of the rows are contested")
    given = parser.parse_args()
    with reporting_errors() as result:
        main(given.folder, given.gym)
    sys.exit(result.exit_code)
