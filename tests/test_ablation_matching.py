"""Matched sets: other experts that the tasks of a feature use as much as the feature's experts."""

from itertools import chain, combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from planted_routes import features_of_columns, random_routes

from dataloader.ontology import Ontology
from routing_moe.analysis.ablation.expert_sets import leaves_every_layer
from routing_moe.analysis.ablation.matching import (
    TOLERANCE,
    candidate_sets,
    is_matched,
    matched_sets,
    mean_weights,
    tasks_of,
)
from routing_moe.analysis.ablation.plan import strongest
from routing_moe.analysis.ablation.tables import feature_table
from routing_moe.analysis.correlation import correlate

SINGLES = [(row, expert) for row in range(4) for expert in range(3)]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_candidates_are_all_sets_that_leave_an_expert_in_every_layer(size):
    found = candidate_sets(SINGLES, size, 3, seed=0)
    sets = {tuple(SINGLES[place] for place in row) for row in found}
    assert sets == {own for own in combinations(SINGLES, size) if leaves_every_layer(own, 3)}
    assert len(found) == len(sets)
    assert (found == candidate_sets(SINGLES, size, 3, seed=0)).all()


def test_sets_are_drawn_at_random_if_there_are_too_many():
    singles = [(row, expert) for row in range(24) for expert in range(2)]
    found = candidate_sets(singles, 6, 2, seed=0)
    assert 10_000 < len(found) == len(np.unique(found, axis=0))
    assert all(leaves_every_layer([singles[place] for place in row], 2) for row in found[:200])
    assert (np.diff(found) > 0).all()


def test_a_matched_set_has_the_mean_weight_of_the_own_experts_but_none_of_them():
    weights_C = np.array([0.5, 0.4, 0.46, 0.44, 0.3, 0.6])
    sets = np.array([[1, 2], [2, 3], [4, 5], [2, 5], [0, 2], [1, 4]])
    # The mean of the own experts is 0.45: 0.405 to 0.495 match. 0.43 has the own expert 1; 0.53 is too large.
    assert is_matched(weights_C, [0, 1], sets).tolist() == [False, True, True, False, False, False]


class Job:
    """A fake job without a model, of given routes."""

    def __init__(self, routes):
        self.weights = dict(zip(routes.tasks, routes.values_NLE, strict=True))
        self.evaluator = SimpleNamespace(tasks=list(routes.tasks), weights=self.weights)
        layers, experts = routes.values_NLE.shape[1:]
        self.singles = [(row, expert) for row in range(layers) for expert in range(experts)]

    def name(self, experts):
        return "+".join(f"enc{row}.{expert}" for row, expert in experts)

    def drops(self, sets, cost):
        """The drop of a set is its mean weight in a task's route times its cost."""
        rows = {
            self.name(experts): {
                task: cost(experts) * np.mean([route[expert] for expert in experts])
                for task, route in self.weights.items()
            }
            for experts in sets
        }
        return pd.DataFrame.from_dict(rows, orient="index")


def features_by_chance(tasks: int, count: int):
    draw = np.random.default_rng(5)
    return features_of_columns({f"f:{n}": draw.permutation(tasks) < tasks // 3 for n in range(count)})


def test_matched_sets_are_shared_by_similar_features_and_reproducible():
    routes, features = random_routes(0, tasks=12, layers=6), features_by_chance(12, 4)
    job = Job(routes)
    chosen = dict.fromkeys(features.names, ((0, 0), (3, 1)))
    found = matched_sets(job.weights, job.singles, chosen, features, 20, 0)
    assert found == matched_sets(job.weights, job.singles, chosen, features, 20, 0)
    assert found != matched_sets(job.weights, job.singles, chosen, features, 20, 1)
    for name, sets in found.items():
        weights_LE = mean_weights(job.weights, tasks_of(name, features, job.evaluator.tasks))
        own, *others = (np.mean([weights_LE[e] for e in experts]) for experts in (chosen[name], *sets))
        assert len(set(sets)) == len(sets) == 20
        assert others == pytest.approx([own] * 20, rel=TOLERANCE + 1e-6)
        assert not {(0, 0), (3, 1)} & {expert for experts in sets for expert in experts}
    assert len({experts for sets in found.values() for experts in sets}) < 4 * 20
    none = matched_sets(job.weights, job.singles, chosen, features, 0, 0)
    assert none == {name: [] for name in features.names}


def test_a_numeric_feature_is_matched_among_all_tasks_with_a_known_value():
    features = features_of_columns({"length": [1, 3, np.nan, 2], "f:a": [1, 0, np.nan, 1]})
    tasks = [f"task{n}" for n in range(4)]
    assert tasks_of("length", features, tasks) == ["task0", "task1", "task3"]
    assert tasks_of("f:a", features, tasks) == ["task0", "task3"]


def test_experts_that_are_used_but_not_specific_are_not_significant_against_matched_sets():
    """The drop of a set only depends on its weight and on chance. The experts of a feature are used more by
    its tasks than by others: their drop is larger than that of uniformly drawn sets, but not of matched
    sets."""
    routes, features = random_routes(5, tasks=18, layers=8), features_by_chance(18, 30)
    chance, costs = np.random.default_rng(3), {}
    job = Job(routes)
    table = correlate(routes, features, permutations=0)
    chosen = {}
    for name in features.names:
        top = strongest(table, name, 3, 3).itertuples()
        chosen[name] = tuple(sorted((routes.layers.index(row.layer), int(row.expert)) for row in top))
    matched = matched_sets(job.weights, job.singles, chosen, features, 20, 0)
    everything = candidate_sets(job.singles, 3, 3, seed=0)[:20]
    uniform = [tuple(job.singles[place] for place in row) for row in everything]
    every_set = dict.fromkeys([*chosen.values(), *chain(*matched.values()), *uniform])
    drops_ST = job.drops(every_set, lambda experts: costs.setdefault(experts, chance.normal(1, 0.1)))
    p = {}
    for kind, sets in (("matched", matched), ("uniform", dict.fromkeys(chosen, uniform))):
        found = feature_table(job, chosen, sets, drops_ST, features, Ontology({})).set_index("group")
        p[kind] = found.loc["with feature", "p"]
    assert (p["uniform"] < 0.05).mean() > 0.25
    assert (p["matched"] < 0.05).mean() < 0.15
    assert p["uniform"].mean() < 0.25 < 0.35 < p["matched"].mean()
