"""Vectors of unseen tasks: stored, nearest, learned, given."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from mistakes import assert_problem, complaint
from tiny_runs import TRAIN_TASKS, assert_equal, run, weights, write_new_tasks
from tiny_vectors import write_vectors

from dataloader.encoding import TextFormat
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.model.task_vectors import save_task_vectors
from routing_moe.task_choice.choice import Resolver
from routing_moe.task_choice.choose import Chooser, with_vectors
from routing_moe.task_choice.learned import learn_vector
from routing_moe.task_choice.texts import TextsOfModel, TextSource, nearest_task

pytestmark = pytest.mark.usefixtures("quick_pictures")


def test_rows_decide_which_tasks_get_the_nearest_tasks_vector():
    def needing(rule):
        resolver = Resolver("learned", ["a", "b", "given", "drawn"], ["drawn"], ["a", "b"], rule)
        assert resolver.seen == {"a", "b"}
        return [task for task in ("a", "given", "drawn", "absent") if resolver.way(task) == "nearest_task"]

    assert needing("auto") == ["drawn", "absent"]
    assert needing("nearest") == ["given", "drawn", "absent"]
    assert needing("stored") == []
    assert Resolver("learned", ["a", "given", "drawn"], ["drawn"]).seen == {"a", "given"}


@pytest.mark.parametrize(
    ("asked", "ways"),
    [  # of a task with a row, of a sample of it, of an unknown task
        (dict(source="learned"), ["stored_vector", "stored_vector", "nearest_task"]),
        (dict(source="learned", rule="learned"), ["learned"] * 3),
        (dict(source="fixed"), ["own_route", "own_route", "average"]),
        (dict(source="fixed", rule="nearest"), ["own_route", "own_route", "nearest_task"]),
        (dict(source="fixed", names=(), rule="nearest"), ["average"] * 3),  # no route can be copied
        (dict(source="fixed", routes={"new": None}), ["own_route", "own_route", "given_route"]),
        (dict(source="fixed", by_loss=True), ["own_route", "lowest_loss", "lowest_loss"]),
        (dict(source="average", names=()), ["average"] * 3),
    ],
)
def test_one_rule_decides_for_all_commands(asked, ways):
    resolver = Resolver(**dict(names=["a"], trained=["a"]) | asked)
    assert [resolver.way("a"), resolver.way("a", "a_16_13"), resolver.way("new")] == ways


def test_the_nearest_task_is_found_after_centring():
    candidates = {"left": [99, 100], "right": [101, 100], "up": [100, 103]}
    candidates = {name: np.array(vector, dtype=float) for name, vector in candidates.items()}
    # Their mean is (100, 101). Centred: left (-1, -1), right (1, -1), up (0, 2), the text (3, -1).
    name, cosine = nearest_task(np.array([103.0, 100]), candidates)
    assert name == "right"
    assert cosine == pytest.approx(4 / np.sqrt(2 * 10))
    assert nearest_task(np.ones(2), {"only": np.zeros(2)}) == ("only", 0.0)


def test_each_task_gets_its_vector_with_its_source(make_model, tmp_path):
    model = make_model(dtype=torch.float32, random_vectors=["d"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # The trained c is planted next to d, and the untrained b even nearer; a is planted next to x.
    texts_ND = np.array([[1, 0], [0, 1], [0, 0.9], [0, 1], [0.9, 0]])
    save_task_vectors(tmp_path, ["a", "b", "c", "d", "x"], texts_ND)
    texts = TextsOfModel(TextSource((), TextFormat(), folder=str(tmp_path)), model, None, None)

    def chosen(tasks, rule):
        resolver = Resolver.of(model.config, ["a", "c"], rule=rule)
        return [Chooser(model, resolver, texts).choose(task) for task in tasks]

    choices = chosen(["a", "b", "d", "x"], "auto")
    assert [c.neighbour for c in choices] == [None, None, "c", "a"]
    assert choices[1].description == "stored vector"
    assert choices[2].description == "vector of c (nearest by text, cosine 0.99)"
    assert [choice.row for choice in choices] == [0, 1, 2, 0]
    assert_equal(dict(model.state_dict()), before)
    (choice,) = chosen(["b"], "nearest")
    assert (choice.source, choice.neighbour) == ("nearest", "c")
    (drawn,) = chosen(["d"], "stored")
    assert drawn.row == 3
    with pytest.raises(KeyError, match="no task vector for x"):
        chosen(["x"], "stored")


def test_vectors_are_added_and_replaced(make_model, tmp_path):
    model = make_model(dtype=torch.float32, random_vectors=["c", "d"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    routes_NLE = model.routes_for(["a", "b", "c"])
    new_D = before["task_vectors.weight"][0]
    assert with_vectors(model, {"d": new_D, "e": new_D}) is model
    assert model.config.task_names == ["a", "b", "c", "d", "e"]
    assert model.config.random_vectors == ["c"]
    assert torch.equal(model.routes_for(["a", "b", "c"]), routes_NLE)
    assert torch.equal(model.routes_for(["d", "e"]), routes_NLE[[0, 0]])
    rows_ND = before.pop("task_vectors.weight")
    after = dict(model.state_dict())
    assert torch.equal(after.pop("task_vectors.weight"), rows_ND[[0, 1, 2, 0, 0]])
    assert_equal(after, before)
    model.save_pretrained(tmp_path)
    again = RoutingBartForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(again.routes_for(["e"]), routes_NLE[:1])


def learned(model, examples, **changed):
    asked = dict(task="new", examples=examples, steps=20, rate=0.3, seed=3) | changed
    return learn_vector(model, **asked, accelerator=Accelerator(cpu=True))


@pytest.mark.parametrize(
    "fields",
    [
        dict(router_mode="gumbel_softmax_st", exploration_epsilon=1.0),
        dict(router_mode="top_k", expert_mixing="parameters"),
    ],
)
def test_only_the_vector_is_learned_and_a_seed_determines_it(fields, make_model, examples):
    model = make_model(random_vectors=["d"], router_temperature=0.7, **fields)
    model.router.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config, graded = model.config.to_dict(), [p.requires_grad for p in model.parameters()]
    first, again, other = (learned(model, examples, steps=3, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.vector_D, again.vector_D)
    assert not np.array_equal(first.vector_D, other.vector_D) or "expert_mixing" in fields
    mean_D = before["task_vectors.weight"][:3].mean(0).float().numpy()
    assert not np.allclose(first.vector_D, mean_D, atol=0.01)
    assert np.array_equal(learned(model, examples, steps=1, rate=0.0).vector_D, mean_D)
    assert_equal(dict(model.state_dict()), before)
    assert model.config.to_dict() == config
    assert [p.requires_grad for p in model.parameters()] == graded
    assert not any(p.grad is not None for p in model.parameters())
    assert not model.training
    assert first.description == "vector learned from 14 examples"


OF_TRAINING = ("do_train", "initialize_from_vanilla", "init_eps", "num_experts", "router_hidden_dim")
OF_TRAINING += ("taskvecs_dim", "router_lr", "task_model_lr")
PREDICTING = dict(do_predict=True, predict_split="test")
ONLY = dict.fromkeys(OF_TRAINING) | PREDICTING
SCORES = "best/eval-test_tasks-test-performance.csv"


def assert_scored_as_with(model, vector_D, folder, by_hand, world):
    """Scores and answers of a folder equal those with this vector as the stored one of the unseen task."""
    model.task_vectors.weight.data[model.config.task_names.index("plural")] = vector_D
    model.save_pretrained(by_hand / "best")
    assert run(world.gym, world.bart, by_hand, **ONLY, task_vector="stored") == 0
    scores = [pd.read_csv(place / SCORES, index_col=0) for place in (by_hand, folder)]
    pd.testing.assert_frame_equal(*(table.drop(columns=["route", "vector_seen"]) for table in scores))
    for part in ("dev", "test"):
        name = f"best/predictions/plural_12_100_{part}.jsonl"
        assert (folder / name).read_bytes() == (by_hand / name).read_bytes()


def test_an_unseen_task_is_scored_with_the_route_of_its_nearest(finished, world):
    folder = world.copy(finished, "nearest")
    before = weights(folder / "best")
    assert run(world.gym, world.bart, folder, **ONLY) == 0
    scores = pd.read_csv(folder / SCORES, index_col=0)
    assert list(scores.columns)[-5:] == ["copy", "route", "vector_seen", "step", "temperature"]
    described = scores["route"][0]
    assert described.split()[2] in TRAIN_TASKS
    seen = "unlabelled inputs of one sample: plural_12_100"  # the first sample
    assert list(scores["vector_seen"]) == [seen]
    settings = json.loads((folder / "best/eval-test_tasks-settings.json").read_text())["settings"]
    assert settings["task_vector"] == "auto"
    assert_equal(weights(folder / "best"), before)  # the checkpoint has not changed

    model = RoutingBartForConditionalGeneration.from_pretrained(folder / "best")
    assert model.config.random_vectors == ["plural"]
    vector_D = before["task_vectors.weight"][model.config.task_names.index(described.split()[2])]
    assert_scored_as_with(model, vector_D, folder, world.copy(finished, "nearest_by_hand"), world)


def test_a_task_missing_in_the_checkpoint_is_scored_with_given_text_vectors(finished, world, tmp_path):
    new = ["newcomer", "colour2"]
    gym = write_new_tasks(tmp_path / "gym", *new, train=TRAIN_TASKS, test=new)
    rows = dict(zip([*new, *TRAIN_TASKS], np.eye(5)[[2, 0, 0, 1, 2]], strict=True))
    write_vectors(tmp_path / "texts", rows)
    folder = world.copy(finished, "newcomer")
    asked = ONLY | dict(custom_tasks_splits=gym / "split.json", text_vectors=tmp_path / "texts")
    assert run(gym, world.bart, folder, **asked) == 0
    scores = pd.read_csv(folder / SCORES, index_col=0).set_index("task_prefix")
    assert set(scores["vector_seen"]) == {"unknown"}  # the folder of text vectors does not say
    assert scores["route"].to_dict() == {
        "newcomer": "vector of opposite (nearest by text, cosine 1.00)",
        "colour2": "vector of colour (nearest by text, cosine 1.00)",
    }


def test_an_unseen_task_is_scored_with_the_route_of_its_given_vector(finished, world, tmp_path):
    folder = world.copy(finished, "by_given")
    before = weights(folder / "best")
    model = RoutingBartForConditionalGeneration.from_pretrained(folder / "best")
    # The vector of another task, so that the scores are those of that task's route.
    vector = before["task_vectors.weight"][model.config.task_names.index("count")]
    rows = {"plural": vector.numpy(), "count": np.full(8, 5.0)}
    vectors = write_vectors(tmp_path, rows, seen="labelled rows of all samples")
    assert run(world.gym, world.bart, folder, **ONLY, taskvecs=vectors) == 0
    scores = pd.read_csv(folder / SCORES, index_col=0)
    assert list(scores["route"]) == ["given vector"]
    assert list(scores["vector_seen"]) == ["labelled rows of all samples"]
    assert_equal(weights(folder / "best"), before)  # the checkpoint is unchanged

    assert_scored_as_with(model, vector, folder, world.copy(finished, "by_given_by_hand"), world)


def test_train_tasks_keep_their_own_vectors(finished, world, tmp_path):
    folder = world.copy(finished, "given_for_trained")
    before = pd.read_csv(folder / "best/eval-test-performance.csv", index_col=0)
    vectors = write_vectors(tmp_path, dict.fromkeys(TRAIN_TASKS, np.full(8, 9.0)))
    assert run(world.gym, world.bart, folder, **ONLY | dict(predict_split="train"), taskvecs=vectors) == 0
    after = pd.read_csv(folder / "best/eval-test-performance.csv", index_col=0)
    pd.testing.assert_frame_equal(after, before)


def test_given_vectors_are_frozen_or_learned_predict_and_keep_their_scores(world, tmp_path, capsys):
    vectors = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    names = ["opposite", "count", "colour", "plural", "elsewhere"]
    write_vectors(tmp_path, dict(zip(names, vectors, strict=True)), seen="labelled rows of one sample")
    kept = dict(taskvecs=tmp_path, taskvecs_dim=None, total_steps=2, eval_period=2)
    folder = world.run("frozen_given", **kept, freeze_task_model=True, **PREDICTING)
    model = RoutingBartForConditionalGeneration.from_pretrained(folder / "best")
    assert model.config.task_names == names
    assert model.config.router_input_dim == 8
    assert np.array_equal(model.task_vectors.weight.detach().numpy(), vectors)
    scores = pd.read_csv(folder / SCORES, index_col=0)
    assert list(scores["route"]) == ["stored vector"]
    assert list(scores["vector_seen"]) == ["labelled rows of one sample"]
    moved = world.run("trained_given", **kept)
    model = RoutingBartForConditionalGeneration.from_pretrained(moved / "best")
    ratios = model.task_vectors.weight.detach().numpy() / vectors
    assert (ratios.std(axis=1)[:3] > 1e-3).all()
    assert (ratios[3:] == 1).all()  # not trained on: no weight decay either

    same = ONLY | dict(taskvecs=kept["taskvecs"])
    save_task_vectors(kept["taskvecs"], names, vectors + 1)
    assert run(world.gym, world.bart, folder, **same) == 2
    assert "has another vector of " in capsys.readouterr().err
    assert run(world.gym, world.bart, folder, **same, prefix="other-") == 0
    assert (folder / "best/other-eval-test_tasks-test-performance.csv").is_file()


def test_an_unseen_task_without_texts_is_an_error(fresh, originals, capsys):
    for path in fresh.gym.glob("plural/*_train.tsv"):
        path.unlink()
    fresh.vectors(["colour", "count"])
    for changed, message in (
        ({}, "<gym>: no train file of plural to find the nearest task; give a gym with it as --train_dir"),
        (dict(text_vectors="<here>/vectors"), "--text_vectors <here>/vectors: no vector of plural to find"),
    ):
        lines = complaint(fresh, capsys, **ONLY, checkpoint=originals.out / "best", **changed)
        assert_problem(lines, fresh.filled_in(message))
    new = PREDICTING | dict(task_routes="tasks", task_vector="nearest", num_experts=None)
    assert_problem(complaint(fresh, capsys, **new), fresh.filled_in("<gym>: no train file of plural to find"))
