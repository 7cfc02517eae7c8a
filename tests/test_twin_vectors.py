"""Vectors of tasks with permuted labels: cosines and clusters of pairs by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from routing_moe.model.task_vectors import save_task_vectors
from routing_moe.studies import twin_vectors

TASKS = ["a", "a2", "b", "b2", "c", "c2"]


@pytest.fixture
def gym(tmp_path):
    lines = [f"{task},{task[0]},{'permuted' if task[1:] else 'kept'}," for task in (*TASKS, "d", "d2")]
    lines += ["e,e,,"]  # not a classification task
    (tmp_path / "relabelled.csv").write_text("\n".join(["task,source,labels,permutation", *lines]))
    (tmp_path / "split.json").write_text(json.dumps(dict(train=TASKS, dev=[], test=["d", "d2", "e"])))
    return tmp_path


def saved(gym, name, vectors, tasks=TASKS):
    (gym / name).mkdir()
    save_task_vectors(gym / name, tasks, np.array(vectors, dtype=float))
    return str(gym / name)


def table_of(gym, *folders, clusters="clusters:2"):
    flags = ["--relabelled", str(gym), "--clusters", clusters, "--output_file", str(gym / "table.csv")]
    assert twin_vectors.main([*folders, *flags]) == 0
    return pd.read_csv(gym / "table.csv").to_dict("records")


def test_cosines_and_clusters_of_pairs(gym):
    # Twins are equal: three points around their mean, with cosines of -1/2.
    same = np.repeat(np.eye(3), 2, axis=0) + 7
    # Twins are opposite along axes of their own, with a little in common for those with the same labels.
    signs = np.tile([[1], [-1]], (3, 1))
    opposite = signs * (np.repeat(np.eye(4)[:3], 2, axis=0) + np.eye(4)[3] / 2)
    equal, apart = table_of(gym, saved(gym, "same", same), saved(gym, "opposite", opposite))
    assert [equal[name] for name in ("cosine", "cosine_low", "cosine_high")] == pytest.approx([1, 1, 1])
    assert equal["cosine_others"] == pytest.approx(-0.5)
    assert (equal["other_cluster"], equal["clusters"], equal["part"]) == (0, 2, "all")
    assert (equal["pairs"], equal["tasks"], equal["sizes"]) == (3, 6, "4 2")
    assert equal["other_cluster_random"] == pytest.approx(1 - (2 * 1 + 4 * 3) / 30, abs=1e-4)
    assert [apart[name] for name in ("cosine", "cosine_low", "cosine_high")] == pytest.approx([-1, -1, -1])
    # 0.25 / 1.25 for equal labels, the opposite for others: as many of either.
    assert apart["cosine_others"] == pytest.approx(0, abs=1e-4)
    assert (apart["other_cluster"], apart["sizes"]) == (1, "3 3")
    assert apart["other_cluster_random"] == pytest.approx(1 - 2 * 3 * 2 / 30, abs=1e-4)


def test_only_train_tasks_are_clustered(gym):
    vectors = np.repeat(np.eye(9)[:4], 2, axis=0)
    vectors = np.concatenate([vectors, np.eye(9)[8:]])
    tasks = [*TASKS, "d", "d2", "e"]
    few, all_tasks = (saved(gym, name, vectors[:n], tasks[:n]) for name, n in (("few", 6), ("all", 9)))
    first, second = table_of(gym, few, all_tasks)
    assert first | {"vectors": all_tasks} == second


def test_mistakes_are_named(gym, capsys):
    folder = saved(gym, "few", np.eye(6)[:5], TASKS[:5])
    for flags, message in (
        ([folder], f"error: {folder} has no vector for c2"),
        ([folder, "--clusters", "ontology"], "--clusters is 'ontology'; give clusters:K"),
        ([saved(gym, "all", np.eye(6)), "--clusters", "clusters:9"], "--clusters is clusters:9; K must be"),
    ):
        assert twin_vectors.main([*flags, "--relabelled", str(gym)]) == 2
        assert message in capsys.readouterr().err
    (gym / "split.json").write_text(json.dumps(dict(train=["a", "b2", "e"], dev=[], test=[])))
    assert twin_vectors.main([folder, "--relabelled", str(gym)]) == 2
    assert f"{gym}: no pair is among the train tasks" in capsys.readouterr().err
