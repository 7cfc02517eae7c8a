"""What the routes of a run on a conflict gym have to do with the true skills of its tasks."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.jsonfile import load_json_object
from routing_moe.io.run_folder import settings_of_run
from routing_moe.model.route_clusters import groups_of_equal_rows
from routing_moe.results.scores import ScoresFile, read_scores
from routing_moe.studies.conflict_variants import NEAREST_CLUSTER

COLUMNS = ("clusters", "ami", "unseen", "right", "unseen_nearest", "right_nearest")
# A choice in the scores of unseen tasks: "cluster 3 (...", "route of expert 3 (...", "route of t003 (...".
CHOICE = re.compile(r"(?:cluster|route of expert) (?P<expert>\d+) \(|(?:route|vector) of (?P<task>\S+) \(")


def routes_of_run(run: Path) -> dict[str, float]:
    """Returns COLUMNS of a run, NaN where it has no value.

    Tasks with the same expert in each layer, that of the largest weight, are a cluster. ami: adjusted mutual
    information of clusters and skills of the train tasks. unseen: mean test score of the unseen tasks. right: share of
    them whose cluster has their skill as the most frequent one of its train tasks. _nearest: with the nearest cluster
    instead of that of lowest loss.
    """
    from sklearn.metrics import adjusted_mutual_info_score  # takes a second to import

    from routing_moe.analysis.saved_routes import load_routes

    settings, found = settings_of_run(run), dict.fromkeys(COLUMNS, math.nan)
    skill_of = load_json_object(
        Path(settings["train_dir"]) / "skill_routes.json", "the skills of a conflict gym"
    )
    tasks, experts_NL = (), np.zeros((0, 0), dtype=int)
    if settings.get("num_experts") != 1:
        routes = load_routes(run, kind="chosen")
        routes = routes.of(sorted(routes.tasks))
        tasks, experts_NL = routes.tasks, routes.values_NLE.argmax(axis=-1)
        labels_N = groups_of_equal_rows(experts_NL)
        skills = [skill_of[task] for task in tasks]
        found |= {"clusters": labels_N.max() + 1, "ami": adjusted_mutual_info_score(skills, labels_N)}
    for end, prefix in (("", ""), ("_nearest", NEAREST_CLUSTER)):
        file = run / ScoresFile(section="test", prefix=prefix).path
        if file.is_file():
            scores = read_scores(file)
            found[f"unseen{end}"] = scores.groupby("task_prefix")["performance"].mean().mean()
            found[f"right{end}"] = routed_right(scores, tasks, experts_NL, skill_of)
    return found


def routed_right(
    scores: pd.DataFrame, tasks: tuple[str, ...], experts_NL: np.ndarray, skill_of: dict[str, int]
) -> float:
    """Returns the share of unseen tasks whose cluster has mostly their skill, NaN if no cluster was chosen.

    scores: of the unseen tasks. tasks, experts_NL: train tasks in the order of the checkpoint, and their experts.
    """
    if "route" not in scores or not len(tasks):
        return math.nan
    labels_N, numbers_N = groups_of_equal_rows(experts_NL), experts_NL[:, 0]
    if (
        experts_NL != numbers_N[:, None]
    ).any():  # of composed routes, clusters are numbered by their first task
        numbers_N = labels_N
    skills_N, right = np.array([skill_of[task] for task in tasks]), []
    for task, words in zip(scores["task_prefix"], scores["route"].astype(str), strict=True):
        choice = CHOICE.match(words)
        if not choice:
            return math.nan
        like = (
            tasks.index(choice["task"])
            if choice["task"]
            else int(np.flatnonzero(numbers_N == int(choice["expert"]))[0])
        )
        right.append(np.bincount(skills_N[labels_N == labels_N[like]]).argmax() == skill_of[task])
    return float(np.mean(right))
