"""Prediction with given task vectors: unseen tasks are routed by their own vectors."""

import numpy as np
import pandas as pd
import pytest
from test_unseen_tasks import ONLY, SCORES
from tiny_runs import TRAIN_TASKS, assert_equal, run, weights

from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.model.task_vectors import save_task_vectors

pytestmark = pytest.mark.usefixtures("quick_pictures")


@pytest.fixture
def given(tmp_path):
    """given(names, vectors_ND): a folder of task vectors."""

    def write(names, vectors_ND):
        (tmp_path / "given").mkdir()
        save_task_vectors(tmp_path / "given", names, np.asarray(vectors_ND))
        return tmp_path / "given"

    return write


def test_an_unseen_task_is_scored_with_the_route_of_its_given_vector(finished, world, given):
    folder = world.copy(finished, "by_given")
    before = weights(folder / "best")
    model = RoutingBartForConditionalGeneration.from_pretrained(folder / "best")
    # The vector of another task, so that the scores are those of that task's route.
    vector = before["task_vectors.weight"][model.config.task_names.index("count")]
    vectors = given(["plural", "count"], np.stack([vector, vector * 0 + 5]))
    (vectors / "meta.json").write_text('{"seen": "labelled rows of all samples"}')
    assert run(world.gym, world.bart, folder, **ONLY, taskvecs=vectors) == 0
    scores = pd.read_csv(folder / SCORES, index_col=0)
    assert list(scores["route"]) == ["given vector"]
    assert list(scores["vector_seen"]) == ["labelled rows of all samples"]
    assert "plural: given vector" in (folder / "eval_log.txt").read_text()
    assert_equal(weights(folder / "best"), before)  # the checkpoint is unchanged

    by_hand = world.copy(finished, "by_given_by_hand")
    model.task_vectors.weight.data[model.config.task_names.index("plural")] = vector
    model.save_pretrained(by_hand / "best")
    assert run(world.gym, world.bart, by_hand, **ONLY, task_vector="stored") == 0
    expected = pd.read_csv(by_hand / SCORES, index_col=0)
    sources = ["route", "vector_seen"]
    pd.testing.assert_frame_equal(expected.drop(columns=sources), scores.drop(columns=sources))
    for part in ("dev", "test"):
        name = f"best/predictions/plural_12_100_{part}.jsonl"
        assert (folder / name).read_bytes() == (by_hand / name).read_bytes()


def test_train_tasks_keep_their_own_vectors(finished, world, given):
    folder = world.copy(finished, "given_for_trained")
    before = pd.read_csv(folder / "best/eval-test-performance.csv", index_col=0)
    vectors = given(TRAIN_TASKS, np.full((3, 8), 9.0))
    assert run(world.gym, world.bart, folder, **ONLY | dict(predict_split="train"), taskvecs=vectors) == 0
    after = pd.read_csv(folder / "best/eval-test-performance.csv", index_col=0)
    pd.testing.assert_frame_equal(after, before)


def test_training_with_frozen_given_vectors_does_not_change_them_and_predicts_with_them(world, given):
    vectors = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    names = [*TRAIN_TASKS, "plural"]
    kept = dict(taskvecs=given(names, vectors), taskvecs_dim=None, freeze_task_model=True, total_steps=2)
    (kept["taskvecs"] / "meta.json").write_text('{"seen": "labelled rows of one sample"}')
    folder = world.run("frozen_given", **kept, do_predict=True, predict_split="test")
    model = RoutingBartForConditionalGeneration.from_pretrained(folder / "best")
    assert model.config.task_names == names
    assert model.config.router_input_dim == 8
    assert np.array_equal(model.task_vectors.weight.detach().numpy(), vectors)
    scores = pd.read_csv(folder / SCORES, index_col=0)
    assert list(scores["route"]) == ["stored vector"]
    assert list(scores["vector_seen"]) == ["labelled rows of one sample"]
    moved = world.run("trained_given", **kept | dict(freeze_task_model=None))
    model = RoutingBartForConditionalGeneration.from_pretrained(moved / "best")
    ratios = model.task_vectors.weight.detach().numpy() / vectors
    assert (ratios.std(axis=1)[:3] > 1e-3).all()
    assert ratios[3] == pytest.approx(np.full(8, ratios[3, 0]))  # not trained on: only weight decay
    assert 0.999 < ratios[3, 0] < 1


def test_scores_of_the_stored_vector_are_not_overwritten_by_those_of_another_vector(world, given, capsys):
    vectors = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    names = [*TRAIN_TASKS, "plural"]
    fields = dict(taskvecs=given(names, vectors), taskvecs_dim=None, freeze_task_model=True, total_steps=1)
    folder = world.run("stored_given", **fields)
    same = ONLY | dict(taskvecs=fields["taskvecs"])
    assert run(world.gym, world.bart, folder, **same) == 0  # the same vectors, given again
    save_task_vectors(fields["taskvecs"], names, vectors + 1)
    assert run(world.gym, world.bart, folder, **same) == 2
    printed = capsys.readouterr().err
    assert "has another vector of plural than" in printed
    assert run(world.gym, world.bart, folder, **same, prefix="other-") == 0
    assert (folder / "best/other-eval-test_tasks-test-performance.csv").is_file()
