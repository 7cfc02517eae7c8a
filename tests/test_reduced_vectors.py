"""Principal components of task vectors: hand-computed cases, the tasks they are fitted on, applying them."""

import json

import numpy as np
import pytest
from mistakes import Place, assert_problem, refused
from tiny_runs import typed
from tiny_vectors import meta, vectors, write_vectors

from task.task_emb import reduce
from task.task_emb.reduce import fitted, reduced

TRAIN, UNSEEN = [f"train{i}" for i in range(6)], ["unseen0", "unseen1"]
SAMPLES = ["unseen1_12_100", "unseen1_12_13"]


@pytest.fixture
def place(tmp_path):
    """A folder with a split, and vectors of 9 dimensions of tasks and of the samples of one."""
    (tmp_path / "split.json").write_text(json.dumps({"train": TRAIN, "dev": UNSEEN[:1], "test": UNSEEN[1:]}))
    place = Place(tmp_path, tmp_path, tmp_path)
    write(place, "raw", np.random.default_rng(0).gamma(1.0, size=(10, 9)), [*TRAIN, *UNSEEN, *SAMPLES])
    return place


def write(place, name, vectors_ND, names=(*TRAIN, *UNSEEN), **fields):
    made = dict(method="fisher", seen="labelled rows of one sample", model_files={"a": "b"})
    made["settings"] = dict(seed=42, bottleneck=16, samples="first", tasks=None)
    sample_of = {sample: "unseen1" for sample in SAMPLES if sample in names}
    meta = made | dict(sample_of=sample_of) | fields
    write_vectors(place.folder / name, dict(zip(names, vectors_ND, strict=True)), **meta)


def run(place, **changed) -> int:
    chosen = {"taskvecs": "<here>/raw", "output_dir": place.out, "dim": 3}
    chosen |= {"custom_tasks_splits": "<here>/split.json"} | changed
    return reduce.main(typed({name: place.filled_in(value) for name, value in chosen.items()}))


def test_one_component_explains_all_variance_of_points_on_a_line():
    direction = np.array([[3.0, 4.0]]) / 5
    points = np.array([[-2.0], [0.0], [2.0]]) @ direction + np.array([[10.0, 20.0]])
    reduction = fitted(points, 1, "none")
    # The projections -2, 0, 2 have mean square 8/3; divided by its root they have mean square 1.
    assert np.abs(reduced(points, reduction)[:, 0]) == pytest.approx(np.array([2, 0, 2]) / np.sqrt(8 / 3))
    assert reduction["explained_d"] == pytest.approx([1.0])
    shifted = points[:1] + np.array([[3.0, -4.0]])  # scaled, orthogonal to the line: the same projection
    assert reduced(shifted, reduction) == pytest.approx(reduced(points[:1], reduction))


def test_standardisation_removes_the_scale_of_every_dimension():
    vectors_ND = np.random.default_rng(1).normal(size=(50, 3))
    scaled_ND = vectors_ND * np.array([1.0, 1000.0, 0.001]) + 7
    first, second = (np.abs(reduced(v, fitted(v, 2, "none"))) for v in (vectors_ND, scaled_ND))
    np.testing.assert_allclose(first, second, atol=1e-8)


def test_vectors_are_transformed_by_log_or_to_unit_length():
    fisher = np.array([[1e-8, 1e-2], [1e-7, 1e-2], [1e-6, 2e-2], [1e-5, 1e-2]])
    logs = np.log(fisher + 1e-3 * 5.005e-3)  # of the median
    by_log, of_logs = fitted(fisher, 1, "log"), fitted(logs, 1, "none")
    np.testing.assert_allclose(reduced(fisher, by_log), reduced(logs, of_logs))
    by_unit = fitted(fisher, 1, "unit")
    np.testing.assert_allclose(reduced(fisher * 5, by_unit), reduced(fisher, by_unit))


def test_a_reduction_is_fitted_on_train_tasks_only(place):
    assert run(place) == 0
    raw = vectors(place.folder / "raw")
    changed = np.stack(list(raw.values()))
    changed[6:] = np.random.default_rng(9).normal(size=(4, 9)) * 100
    write(place, "changed", changed, list(raw))
    assert run(place, taskvecs="<here>/changed", output_dir="<here>/out2") == 0
    first, second = (vectors(folder) for folder in (place.out, place.folder / "out2"))
    assert list(first) == list(raw)
    assert all(np.array_equal(first[task], second[task]) for task in TRAIN)
    assert not any(np.array_equal(first[task], second[task]) for task in UNSEEN)
    saved = meta(place.out)
    assert (saved["fitted_on"], saved["fitted_on_seen"]) == (TRAIN, saved["seen"])
    assert (saved["tasks"], list(saved["sample_of"])) == (8, SAMPLES)
    assert saved["explained_variance"] == sorted(saved["explained_variance"], reverse=True)
    # With --fit_on all, unseen tasks are included.
    assert run(place, output_dir="<here>/leaky", fit_on=["all"], custom_tasks_splits=None) == 0
    assert not np.array_equal(vectors(place.folder / "leaky")["train0"], first["train0"])
    assert meta(place.folder / "leaky")["fitted_on"] == [*TRAIN, *UNSEEN]


LIKE = dict(like="<here>/reduced", dim=None, custom_tasks_splits=None)


def test_a_saved_reduction_is_applied_to_new_tasks(place):
    assert run(place, transform="log", output_dir="<here>/reduced") == 0
    raw, before = vectors(place.folder / "raw"), vectors(place.folder / "reduced")
    new, tasks = np.stack([raw["unseen1"], raw["train2"]]), ["newcomer", "train2"]
    settings = dict(seed=42, bottleneck=16, samples="each", tasks=tasks)
    write(place, "new", new, tasks, seen="nothing", settings=settings)
    assert run(place, **LIKE, taskvecs="<here>/new") == 0
    found = vectors(place.out)
    np.testing.assert_allclose(found["newcomer"], before["unseen1"], atol=1e-6)
    np.testing.assert_allclose(found["train2"], before["train2"], atol=1e-6)
    saved, stamp = meta(place.out), (place.out / "meta.json").stat().st_mtime_ns
    assert run(place, **LIKE, taskvecs="<here>/new") == 0  # the same again changes nothing
    assert (place.out / "meta.json").stat().st_mtime_ns == stamp
    assert (saved["fitted_on"], saved["seen"]) == (TRAIN, "nothing")
    assert saved["fitted_on_seen"] == "labelled rows of one sample"


def test_the_current_folder_may_be_the_output(place, monkeypatch):
    place.out.mkdir(exist_ok=True)
    monkeypatch.chdir(place.out)
    assert run(place, output_dir=".") == 0
    assert list(vectors(place.out)) == [*TRAIN, *UNSEEN, *SAMPLES]


MISTAKES = [
    (dict(dim=6), "--taskvecs <here>/raw: --dim is 6, but the vectors of 6 tasks span 5; give less"),
    (dict(dim=None), "give the number of dimensions as --dim, or else an existing reduction"),
    (dict(custom_tasks_splits=None), "give --custom_tasks_splits for the train tasks"),
    (dict(custom_tasks_splits="<here>/other.json"), "--taskvecs <here>/raw: no task other"),
    (dict(taskvecs="<here>/same"), "--taskvecs <here>/same: ... the vectors of 6 tasks span 0"),
    (dict(output_dir="<here>/raw"), "--output_dir <here>/raw is not empty and has no reduction.npz"),
    (dict(output_dir="<here>/reduced", fit_on=["all"]), "--fit_on is all, but in <here>/reduced it was not"),
    (LIKE | dict(transform="log"), "--transform is for fitting a reduction; that of --like is fitted"),
    (dict(taskvecs="<here>/reduced", output_dir="<here>/reduced"), "is the folder of --taskvecs or --like"),
    (LIKE | dict(taskvecs="<here>/same"), "the reduction needs vectors of 9 dimensions, these have 2"),
    (LIKE | dict(taskvecs="<here>/seed"), "--seed is 7, but in the vectors that --like ... it was 42"),
    (LIKE | dict(taskvecs="<here>/text"), "another method than that of the vectors that --like"),
]


@pytest.mark.parametrize(("changed", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_is_reported(changed, message, place, capsys):
    place.write("other.json", {"train": [*TRAIN, "other"]})
    write(place, "same", np.zeros((8, 2)))
    write(place, "text", np.ones((8, 9)), method="text")
    write(place, "seed", np.ones((8, 9)), settings=dict(seed=7, bottleneck=16))
    run(place, output_dir="<here>/reduced")
    printed = refused(place, capsys, lambda: run(place, **changed))
    assert_problem(printed.err.splitlines(), *map(place.filled_in, message.split(" ... ")))
