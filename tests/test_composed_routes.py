"""Whole runs with fewer experts than clusters of tasks: routes are composed of codewords."""

import numpy as np
import pytest
from test_task_routes import FIXED, LEARNED, ONLY, experts, model_of, scores_of, vectors
from tiny_runs import TRAIN_TASKS, assert_same_run, run

pytestmark = pytest.mark.usefixtures("quick_pictures")
__all__ = ["vectors"]  # a fixture


def test_fewer_experts_than_clusters_are_composed(world, vectors):
    asked = FIXED | dict(num_experts=2, task_routes="clusters:3")
    asked["taskvecs"] = vectors([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0.9, 0.1]])
    folder = world.run("outside/composed", **asked)
    words = {"colour": [0, 0, 0], "opposite": [0, 1, 1], "count": [1, 0, 1]}  # in the ontology's order
    assert experts(folder) == words | {"plural": words["count"]}  # of the nearest cluster
    log = (folder / "log.txt").read_text()
    assert "all layers: 3 clusters of 1, 1, 1 tasks" in log
    shared = "any two share an expert in at most 1 of 3 layers"
    assert f"all layers: 3 clusters composed of 2 experts per layer, {shared}" in log
    assert_same_run(world.resumed("outside/composed_resumed", **asked), folder)
    assert run(world.gym, world.bart, folder, **ONLY) == 0
    assert scores_of(folder).loc["plural", "route"].startswith("cluster 1 (cosine 0.9")
    # A task that is given a vector later gets the word of its nearest cluster, too.
    new = vectors([[0, 0, 1]], ["plural"], "new")
    assert run(world.gym, world.bart, folder, **ONLY, taskvecs=new, prefix="new-") == 0
    assert scores_of(folder, "new-").loc["plural", "route"] == "cluster 2 (cosine 1.00)"


def test_a_router_starts_with_composed_routes(world, vectors):
    asked = LEARNED | dict(num_experts=2, task_routes="clusters:3", task_routes_as="start", taskvecs_dim=None)
    asked |= dict(taskvecs=vectors(np.eye(4)), total_steps=1, learning_rate=0, router_lr=0)
    model = model_of(world.run("outside/composed_start", **asked))
    routes_NLE = model.routes_for(TRAIN_TASKS, "gumbel_softmax_st")
    assert routes_NLE.argmax(-1).tolist() == [[0, 0, 0], [1, 0, 1], [0, 1, 1]]
