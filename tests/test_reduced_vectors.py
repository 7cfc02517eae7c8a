"""Principal components of task vectors: hand-computed cases, the tasks they are fitted on, applying them."""

import json

import numpy as np
import pytest
from mistakes import assert_problem, refused
from tiny_runs import typed
from tiny_vectors import meta, vectors

from routing_moe.model.task_vectors import save_task_vectors
from task.task_emb import reduce
from task.task_emb.reduce import Reduction

TRAIN, UNSEEN = [f"train{i}" for i in range(6)], ["unseen0", "unseen1"]


@pytest.fixture
def place(tmp_path):
    """A folder with a split, and task vectors of 9 dimensions."""
    from mistakes import Place

    (tmp_path / "split.json").write_text(json.dumps({"train": TRAIN, "dev": UNSEEN[:1], "test": UNSEEN[1:]}))
    write(tmp_path / "raw", np.random.default_rng(0).gamma(1.0, size=(8, 9)))
    return Place(tmp_path, tmp_path, tmp_path)


def write(folder, vectors_ND, names=(*TRAIN, *UNSEEN)):
    folder.mkdir(parents=True)
    save_task_vectors(folder, list(names), vectors_ND)


def run(place, **changed) -> int:
    chosen = {
        "taskvecs": place.folder / "raw",
        "output_dir": place.out,
        "custom_tasks_splits": place.folder / "split.json",
        "dim": 3,
    } | {name: place.filled_in(value) for name, value in changed.items()}
    return reduce.main(typed(chosen))


# ---- numbers


def test_one_component_explains_all_variance_of_points_on_a_line():
    direction = np.array([[3.0, 4.0]]) / 5
    points = np.array([[-2.0], [0.0], [2.0]]) @ direction + np.array([[10.0, 20.0]])
    reduction = Reduction.fit(points, 1)
    # The projections -2, 0, 2 have mean square 8/3; divided by its root they have mean square 1.
    assert np.abs(reduction(points)[:, 0]) == pytest.approx(np.array([2, 0, 2]) / np.sqrt(8 / 3))
    assert reduction.explained_d == pytest.approx([1.0])
    shifted = points[:1] + np.array([[3.0, -4.0]])  # scaled, orthogonal to the line: the same projection
    assert reduction(shifted) == pytest.approx(reduction(points[:1]))


def test_standardisation_removes_the_scale_of_every_dimension():
    rng = np.random.default_rng(1)
    vectors_ND = rng.normal(size=(50, 3))
    scaled_ND = vectors_ND * np.array([1.0, 1000.0, 0.001]) + 7
    one, other = (Reduction.fit(v, 2)(v) for v in (vectors_ND, scaled_ND))
    np.testing.assert_allclose(np.abs(one), np.abs(other), atol=1e-8)


def test_reduced_vectors_have_mean_square_one_as_standard_normal_vectors():
    vectors_ND = np.random.default_rng(2).normal(size=(30, 8)) * np.arange(1, 9) * 1e-5
    reduced = Reduction.fit(vectors_ND, 4)(vectors_ND)
    squares_d = np.square(reduced).mean(axis=0)
    assert squares_d.mean() == pytest.approx(1)
    assert list(squares_d) == sorted(squares_d, reverse=True)


def test_vectors_are_transformed_by_log_or_to_unit_length():
    fisher = np.array([[1e-8, 1e-2], [1e-7, 1e-2], [1e-6, 2e-2], [1e-5, 1e-2]])
    logs = np.log(fisher + 1e-3 * 5.005e-3)  # of the median
    by_log = Reduction.fit(fisher, 1, "log")
    np.testing.assert_allclose(by_log(fisher), Reduction.fit(logs, 1)(logs))
    by_unit = Reduction.fit(fisher, 1, "unit")
    np.testing.assert_allclose(by_unit(fisher * 5), by_unit(fisher))


# ---- no leakage


def test_a_reduction_is_fitted_on_train_tasks_only(place):
    assert run(place) == 0
    rng = np.random.default_rng(9)
    raw = vectors(place.folder / "raw")
    names, changed = list(raw), np.stack(list(raw.values()))
    changed[6:] = rng.normal(size=(2, 9)) * 100
    write(place.folder / "changed", changed, names)
    assert run(place, taskvecs=place.folder / "changed", output_dir=place.folder / "out2") == 0
    first, second = (vectors(folder) for folder in (place.out, place.folder / "out2"))
    assert list(first) == [*TRAIN, *UNSEEN]
    assert all(np.array_equal(first[task], second[task]) for task in TRAIN)
    assert not any(np.array_equal(first[task], second[task]) for task in UNSEEN)
    assert meta(place.out)["fitted_on"] == TRAIN
    # With --fit_on all, unseen tasks are included.
    assert run(place, output_dir=place.folder / "leaky", fit_on=["all"]) == 0
    assert not np.array_equal(vectors(place.folder / "leaky")["train0"], first["train0"])
    assert meta(place.folder / "leaky")["fitted_on"] == sorted([*TRAIN, *UNSEEN])


def test_a_saved_reduction_is_applied_to_new_tasks(place, capsys):
    assert run(place, transform="log") == 0
    raw = vectors(place.folder / "raw")
    write(place.folder / "new", np.stack([raw["unseen1"], raw["train2"]]), ["newcomer", "train2"])
    later = dict(taskvecs=place.folder / "new", output_dir=place.folder / "later", like=place.out)
    assert run(place, **later, dim=None, custom_tasks_splits=None) == 0
    found, before = vectors(place.folder / "later"), vectors(place.out)
    np.testing.assert_allclose(found["newcomer"], before["unseen1"], atol=1e-6)
    np.testing.assert_allclose(found["train2"], before["train2"], atol=1e-6)
    assert meta(place.folder / "later")["fitted_on"] == TRAIN


def test_the_explained_variance_is_logged_and_saved(place, capsys):
    assert run(place, dim=5) == 0
    printed = capsys.readouterr().err
    assert "cumulative explained variance by number of components, fitted on 6 tasks: 1: " in printed
    assert "5: 100.0%" in printed  # 6 points span 5 dimensions
    explained = meta(place.out)["explained_variance"]
    assert explained == sorted(explained, reverse=True)
    assert sum(explained) == pytest.approx(1)


# ---- mistakes


def constant(place):
    write(place.folder / "same", np.ones((8, 9)))


def partly_negative(place):
    write(place.folder / "negative", np.random.default_rng(0).normal(size=(8, 9)))


def of_zeros(place):
    write(place.folder / "zeros", np.zeros((8, 9)))


def broken_reduction(place):
    run(place, output_dir=place.folder / "reduced")
    (place.folder / "reduced/reduction.npz").write_bytes(b"PK\x03\x04 cut off")


def other_width(place):
    run(place, output_dir=place.folder / "reduced")
    write(place.folder / "wide", np.ones((8, 10)))


def other_settings(place):
    for name, seed in (("raw", 42), ("narrow", 7)):
        made = {"method": "fisher", "settings": {"seed": seed, "samples": name, "output_dir": name}}
        place.write(place.folder / name / "meta.json", made)
    run(place, output_dir=place.folder / "reduced")


def other_method(place):
    for name, method in (("raw", "text"), ("narrow", "finetuned_text")):
        place.write(place.folder / name / "meta.json", {"method": method})
    run(place, output_dir=place.folder / "reduced")


LIKE = dict(dim=None, custom_tasks_splits=None)
MISTAKES = {
    "more dimensions than tasks span": (
        None,
        dict(dim=6),
        "--dim is 6, but 6 mean-centred vectors of 9 dimensions span at most 5; give less",
    ),
    "no train tasks": (
        None,
        dict(custom_tasks_splits=None),
        "the train tasks are not known: give --custom_tasks_splits, or --fit_on all",
    ),
    "a train task without vector": (
        lambda place: place.split(train=[*TRAIN, "other"]),
        {},
        "split.json: --taskvecs <here>/raw does not have other; give others with --tasks",
    ),
    "equal vectors": (
        constant,
        dict(taskvecs="<here>/same"),
        "--taskvecs <here>/same: the vectors of 6 tasks span 0",
    ),
    "the log of negative numbers": (
        partly_negative,
        dict(taskvecs="<here>/negative", transform="log"),
        "--transform is log, but the vectors have negative numbers; give unit or none",
    ),
    "the log of zeros": (
        of_zeros,
        dict(taskvecs="<here>/zeros", transform="log"),
        "--transform is log, but the vectors have no positive numbers; give none",
    ),
    "the input folder as output": (
        None,
        dict(output_dir="<here>/raw"),
        "--output_dir <here>/raw is the folder of --taskvecs; name another folder",
    ),
    "dimensions with a saved reduction": (
        broken_reduction,
        LIKE | dict(like="<here>/reduced", dim=3),
        "--dim and --like both determine the reduction; give one of them",
    ),
    "a reduction of vectors made with other settings": (
        other_settings,
        LIKE | dict(like="<here>/reduced", taskvecs="<here>/narrow"),
        "--taskvecs <here>/narrow: --seed is 7, but in the vectors that <here>/reduced was fitted on it was",
    ),
    "a reduction of other vectors": (
        other_width,
        LIKE | dict(like="<here>/reduced", taskvecs="<here>/wide"),
        "--taskvecs <here>/wide: the reduction needs vectors of 9 dimensions, these have 10",
    ),
    "a reduction of vectors of another method": (
        other_method,
        LIKE | dict(like="<here>/reduced", taskvecs="<here>/narrow"),
        "--taskvecs <here>/narrow: the method is finetuned_text, but text in the vectors that <here>/reduced",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_reported(name, place, capsys):
    change, changed, *fragments = MISTAKES[name]
    write(place.folder / "narrow", np.random.default_rng(0).normal(size=(8, 2)))
    if change:
        change(place)
    printed = refused(place, capsys, lambda: run(place, **changed))
    assert_problem(printed.err.splitlines(), *map(place.filled_in, fragments))
