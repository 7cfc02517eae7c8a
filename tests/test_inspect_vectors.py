"""inspect: agreement of nearest neighbours with labels, by hand-computed numbers; its outputs."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from mistakes import Place, assert_problem, refused

from dataloader.labels import read_labels
from routing_moe.model.task_vectors import save_task_vectors
from task.task_emb import inspect
from task.task_emb.inspect import agreement, cosine_distances_of_centred, majority, nearest

TREE = {"words": {"meaning": ["hot", "big"], "form": ["cats", "mice"]}, "numbers": {"all": ["one", "two"]}}
NAMES = ["two", "mice", "hot", "one", "cats", "big"]  # not in the ontology's order
# Vectors of a subcategory have similar directions; those of a category are closer than those of another.
CLUSTERED = {
    "hot": [1.0, 0.1, 0.0], "big": [1.0, 0.2, 0.0], "cats": [1.0, 2.0, 0.0],
    "mice": [1.0, 2.2, 0.0], "one": [-1.0, -1.0, 3.0], "two": [-1.0, -1.0, 3.1],
}  # fmt: skip
LABELS = """\
task,shape,skill:spell,skill:count
hot,round,1,0
big,round,1,0
cats,flat,1,1
mice,flat,1,1
one,,0,1
two,flat,0,1
unheard,round,0,1
"""


def write_folder(folder, names=NAMES, vectors=CLUSTERED):
    folder.mkdir(parents=True)
    save_task_vectors(folder, list(names), np.array([vectors[name] for name in names]))
    return folder


@pytest.fixture
def place(tmp_path):
    """A gym with an ontology and a split, labels, and two folders of vectors: clustered ones and noise."""
    place = Place(tmp_path, tmp_path / "gym", tmp_path / "none")
    place.write(place.gym / "ontology.json", TREE)
    place.split(train=["hot", "big", "cats", "mice"], dev=[], test=["one", "two"])
    place.write(tmp_path / "labels.csv", LABELS)
    write_folder(tmp_path / "clustered")
    draw = np.random.default_rng(0)
    write_folder(
        tmp_path / "noise", [*NAMES, "extra"], {name: draw.normal(size=5) for name in [*NAMES, "extra"]}
    )
    return place


def argv(place, *more, folders=("clustered", "noise")):
    typed = ["--taskvecs", *(str(place.folder / name) for name in folders), "--output_dir", str(place.out)]
    typed += ["--train_dir", str(place.gym), "--neighbours", "1", "--permutations", "200"]
    return [*typed, *(str(word) for word in more)]


def inspected(place, *more, **changed):
    assert inspect.main(argv(place, *more, **changed)) == 0
    return pd.read_csv(place.out / "agreement.csv").set_index(["vectors", "labelling"])


def on_a_line(*positions):
    """Distances of tasks whose vectors are single numbers."""
    return np.abs(np.subtract.outer(positions, positions)).astype(float)


def accuracy(labels, distance_NN, k=1):
    return agreement(distance_NN, labels, k, 1)["accuracy"]


def test_cosine_distances_computed_by_hand():
    distance_NN = cosine_distances_of_centred([[3.0, 0.0], [0.0, 1.0], [-3.0, -2.0], [0.0, 1.0]])
    # the mean is (0, 0)
    cosine = -2 / 13**0.5
    expected = [[0, 1, 1 + 3 / 13**0.5, 1], [1, 0, 1 - cosine, 0], [0, 0, 0, 1 - cosine], [0, 0, 0, 0]]
    expected = np.triu(expected) + np.triu(expected).T
    assert distance_NN == pytest.approx(expected)
    shifted = cosine_distances_of_centred([[8.0, 4.0], [5.0, 5.0], [2.0, 2.0], [5.0, 5.0]])
    assert shifted == pytest.approx(expected)


def test_the_most_frequent_label_wins_and_ties_go_to_the_nearest():
    votes = [[1, 0, 0], [2, 1, 0], [1, 0, 1], [0, 1, 1]]
    assert majority(np.array(votes)).tolist() == [0, 2, 1, 1]
    assert majority(np.array([[3, 1, 1, 3], [0, 1, 1, 2]])).tolist() == [3, 1]


def test_accuracy_computed_by_hand():
    distance_NN, labels = on_a_line(0, 1, 2.5, 6, 7.1, 9), list("aabbbc")
    # The nearest of 0 is 1, of 1 is 0, of 2.5 is 1 (wrong), of 6 is 7.1, of 7.1 is 6; c is not scored.
    assert accuracy(labels, distance_NN, 1) == 4 / 5
    # The nearest 3: of 0 and 1 a b b (wrong), of 2.5 a a b (wrong), of 6 and 7.1 b c b (correct).
    assert nearest(distance_NN, 3)[3].tolist() == [4, 5, 2]
    assert accuracy(labels, distance_NN, 3) == 2 / 5


def test_chance_and_p_of_two_pairs_are_a_third():
    # both pairs have equal labels in 8 of 24 orders of aabb; in the others no task is correct
    found = agreement(on_a_line(0, 1, 10, 11), list("aabb"), 1, 10_000)
    assert (found["chance"], found["p"]) == pytest.approx((1 / 3, 1 / 3), abs=0.02)


def test_silhouette_computed_by_hand_ignores_unique_labels():
    # (5 - 1) / 5, (4 - 1) / 4, (3.5 - 2) / 3.5, (5.5 - 2) / 5.5
    expected = pytest.approx(np.mean([4 / 5, 3 / 4, 3 / 7, 7 / 11]))
    assert agreement(on_a_line(0, 1, 4, 6), list("aabb"), 1, 10)["silhouette"] == expected
    assert agreement(on_a_line(0, 1, 100, 4, 6), list("aacbb"), 1, 10)["silhouette"] == expected


def test_tasks_without_a_label_are_not_neighbours():
    found = agreement(on_a_line(0, 1, 1.5, 4, 6), ["a", "a", None, "b", "b"], 1, 10)
    assert (found["tasks"], found["labels"], found["scored"]) == (4, 2, 4)
    assert found["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("labels", "counts"),
    [
        ([None] * 4, (0, 0, 0)),
        (list("aaaa"), (4, 1, 4)),
        (["a", "a", "b", None], (3, 2, 2)),  # 3 neighbours of 3 tasks
    ],
)
def test_undefined_results_are_nan(labels, counts):
    found = agreement(on_a_line(0, 1, 3, 7), labels, 3, 10)
    assert (found["tasks"], found["labels"], found["scored"]) == counts
    assert np.isnan([found["accuracy"], found["silhouette"], found["chance"], found["p"]]).all()


# ---- outputs


def test_tables_and_pictures_of_two_folders(place, capsys):
    table = inspected(place, "--labels", place.folder / "labels.csv")
    assert sorted(path.name for path in place.out.iterdir()) == [
        "agreement.csv", "agreement.md", "agreement.pdf", "agreement.png",
        "neighbours.csv", "similarity.pdf", "similarity.png",
    ]  # fmt: skip
    assert table.index.tolist() == [
        (name, kind)
        for name in ("clustered", "noise")
        for kind in ("category", "subcategory", "shape", "skill")
    ]
    known = table.loc["clustered"]
    assert known["accuracy"].tolist() == [1.0, 1.0, 0.8, 1.0]  # without "one", "two" is nearest to "hot"
    assert known["tasks"].tolist() == [6, 6, 5, 6]
    assert known["labels"].tolist() == [2, 3, 2, 3]
    assert set(known["dimension"]) == {3}
    assert (known["p"] >= 1 / 201).all()
    assert known.loc["subcategory", "silhouette"] > 0.9
    assert known.loc["subcategory", "chance"] == pytest.approx(1 / 5, abs=0.05)  # one of five other tasks
    printed = capsys.readouterr()
    written = (place.out / "agreement.md").read_text()
    assert printed.out.startswith(written)
    for path in place.out.iterdir():
        assert path.suffix in printed.out
    assert "\n6 tasks, without extra\n" in written
    assert imread(place.out / "similarity.png").std() > 0
    assert (place.out / "agreement.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.usefixtures("empty_pictures")
def test_neighbours_are_listed_with_common_categories(place):
    place.write(place.gym / "ontology.json", TREE | {"numbers": {"all": ["one"]}})
    inspected(place, "--neighbours", "2")
    table = pd.read_csv(place.out / "neighbours.csv", dtype=str, keep_default_na=False)
    table = table[table["vectors"] == "clustered"].set_index(["task", "rank"])
    assert len(table) == 6 * 2
    columns = ["neighbour", "same_category", "same_subcategory"]
    assert table.loc[("hot", "1"), columns].tolist() == ["big", "1", "1"]
    assert table.loc[("hot", "2"), ["category", *columns[1:]]].tolist() == ["words", "1", "0"]
    assert table.loc[("one", "1"), columns].tolist() == ["two", "", ""]
    centred = np.array(list(CLUSTERED.values())) - np.mean(list(CLUSTERED.values()), axis=0)
    one, two = centred[4], centred[5]
    cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    assert float(table.loc[("one", "1"), "similarity"]) == pytest.approx(cosine, abs=1e-5)


@pytest.mark.usefixtures("empty_pictures")
@pytest.mark.parametrize(
    ("words", "tasks"),
    [
        (("test", "hot", "extra"), ["hot", "one", "two"]),
        (("<gym>/split.json:train",), ["hot", "big", "cats", "mice"]),
    ],
)
def test_tasks_are_chosen_by_name_and_by_section(place, words, tasks):
    inspected(place, "--tasks", *map(place.filled_in, words))
    table = pd.read_csv(place.out / "neighbours.csv")
    assert list(table["task"].unique()) == tasks


@pytest.mark.usefixtures("empty_pictures")
def test_zero_and_identical_vectors_are_accepted_from_folders_named_by_the_ends_of_their_paths(place):
    pairs = {name: [float(name in ("hot", "big")), 1.0] for name in NAMES}
    write_folder(place.folder / "zero/best", NAMES, dict.fromkeys(NAMES, [0.0] * 4))
    write_folder(place.folder / "pairs/best", NAMES, pairs)
    table = inspected(place, folders=["zero/best", "pairs/best/"])
    assert table.loc["zero/best", ["accuracy", "silhouette", "chance", "p"]].isna().all(axis=None)
    assert table.loc[("pairs/best", "subcategory"), "accuracy"] >= 1 / 3
    assert set(pd.read_csv(place.out / "neighbours.csv")["vectors"]) == {"pairs/best"}


def test_labels_are_read_verbatim_and_columns_of_0_and_1_are_joined(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("\ufeffskill:b,task,form,skill:a\n1,x,round,1\n\n0,y,,1.0\n0,z,flat,0\n,w,flat,1\n")
    assert read_labels(path) == {
        "skill": {"x": "b+a", "y": "a"},
        "form": {"x": "round", "z": "flat", "w": "flat"},
    }


# ---- mistakes


def error_lines(place, capsys, *more, **changed):
    printed = refused(place, capsys, lambda: inspect.main(argv(place, *more, **changed)))
    return printed.err.splitlines()


MISTAKES = [
    (["--neighbours", "6"], "6 have vectors in all of ... more than --neighbours 6"),
    (["--tasks", "hott", "big"], "--tasks: no task hott; did you mean 'hot'?"),
    (["--tasks", "test"], "--tasks: of 2 tasks, 2 have vectors in all of ... at least 3"),
    (["--taskvecs", "<here>/clustered", "<here>/noise/../clustered"], "--taskvecs: a folder is given twice"),
    (["--taskvecs", "<here>/missing"], "--taskvecs ... missing ... lacks id2task.json and task_vecs.npy"),
]


@pytest.mark.parametrize(("flags", "message"), MISTAKES, ids=[" ".join(flags) for flags, _ in MISTAKES])
def test_a_wrong_flag_is_reported_as_it_was_typed(place, capsys, flags, message):
    lines = error_lines(place, capsys, *map(place.filled_in, flags))
    assert_problem(lines, *map(place.filled_in, message.split(" ... ")))


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        ("Task,a\nhot,b\n", ["no column task", "did you mean 'Task'?"]),
        ("task,a,a:b\nhot,b,1\n", ["a column a and columns a:value"]),
        ("task,category\nhot,b\n", ["column category", "rename the column"]),
        ("task,a\nhot,b\nbig,c\nhot,d\n", ["line 4", "task hot", "in an earlier line"]),
        ("task,a\nhot,b\nbig\n", ["line 3", "1 columns", "first line has 2"]),
        ("task,a\nhoot,b\n", ["none of the tasks", "such as"]),
    ],
)
def test_an_error_in_a_table_of_labels_names_its_line(place, capsys, content, fragments):
    place.write(place.folder / "labels.csv", content)
    lines = error_lines(
        place, capsys, "--labels", place.folder / "labels.csv", "--tasks", "hot", "big", "one"
    )
    assert_problem(lines, f"--labels {place.folder / 'labels.csv'}", *fragments)
