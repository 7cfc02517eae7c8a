"""inspect: agreement of distances with labels, by hand-computed numbers; its outputs."""

import numpy as np
import pandas as pd
import pytest
from mistakes import Place, assert_problem, refused
from tiny_vectors import write_vectors

from task.task_emb import inspect
from task.task_emb.inspect import cosine_distances_of_centred

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


@pytest.fixture
def place(tmp_path):
    """A gym with an ontology and a split, labels, and two folders of vectors: clustered ones and noise."""
    place = Place(tmp_path, tmp_path / "gym", tmp_path / "none")
    place.write(place.gym / "ontology.json", TREE)
    place.split(train=["hot", "big", "cats", "mice"], dev=[], test=["one", "two"])
    place.write(tmp_path / "labels.csv", LABELS)
    write_vectors(tmp_path / "clustered", {name: CLUSTERED[name] for name in NAMES})
    draw = np.random.default_rng(0)
    write_vectors(tmp_path / "noise", {name: draw.normal(size=5) for name in [*NAMES, "extra"]})
    return place


def argv(place, *more, folders=("clustered", "noise")):
    typed = ["--taskvecs", *(str(place.folder / name) for name in folders), "--output_dir", str(place.out)]
    typed += ["--train_dir", str(place.gym)]
    return [*typed, *(str(word) for word in more)]


def inspected(place, *more, **changed):
    assert inspect.main(argv(place, *more, **changed)) == 0
    return pd.read_csv(place.out / "agreement.csv").set_index(["vectors", "kind"])


def test_cosine_distances_computed_by_hand():
    distance_NN = cosine_distances_of_centred([[3.0, 0.0], [0.0, 1.0], [-3.0, -2.0], [0.0, 1.0]])
    # the mean is (0, 0)
    cosine = -2 / 13**0.5
    expected = [[0, 1, 1 + 3 / 13**0.5, 1], [1, 0, 1 - cosine, 0], [0, 0, 0, 1 - cosine], [0, 0, 0, 0]]
    expected = np.triu(expected) + np.triu(expected).T
    assert distance_NN == pytest.approx(expected)
    shifted = cosine_distances_of_centred([[8.0, 4.0], [5.0, 5.0], [2.0, 2.0], [5.0, 5.0]])
    assert shifted == pytest.approx(expected)


# ---- outputs


def test_tables_and_pictures_of_two_folders(place, capsys):
    table = inspected(place, "--labels", place.folder / "labels.csv")
    assert sorted(path.name for path in place.out.iterdir()) == [
        "agreement.csv", "agreement.md", "similarity_clustered.pdf", "similarity_clustered.png",
        "similarity_noise.pdf", "similarity_noise.png",
    ]  # fmt: skip
    kinds = ("category", "subcategory", "shape", "skill")
    assert table.index.tolist() == [(name, kind) for name in ("clustered", "noise") for kind in kinds]
    known = table.loc["clustered"]
    assert known["ami"].tolist()[:2] == pytest.approx([1.0, 1.0])
    assert known["tasks"].tolist() == [6, 6, 5, 6]
    assert known["labels"].tolist() == [2, 3, 2, 3]
    assert set(known["dimension"]) == {3}
    vectors_ND = np.array(list(CLUSTERED.values()))
    upper = np.triu_indices(6, 1)
    other_label = np.subtract.outer([0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1])[upper] != 0
    r = np.corrcoef(cosine_distances_of_centred(vectors_ND)[upper], other_label)[0, 1]
    assert known.loc["category", "mantel_r"] == pytest.approx(r, abs=1e-5)
    assert known.loc["category", "mantel_p"] == pytest.approx(1 / 15, abs=1e-5)  # of the pairs for "numbers"
    printed = capsys.readouterr()
    written = (place.out / "agreement.md").read_text()
    assert printed.out.startswith(written)
    assert "\n6 tasks, without extra\n" in written


@pytest.mark.usefixtures("empty_pictures")
def test_zero_and_identical_vectors_are_accepted_from_folders_named_by_the_ends_of_their_paths(place):
    pairs = {name: [float(name in ("hot", "big")), 1.0] for name in NAMES}
    write_vectors(place.folder / "zero/best", dict.fromkeys(NAMES, [0.0] * 4))
    write_vectors(place.folder / "pairs/best", pairs)
    table = inspected(place, folders=["zero/best", "pairs/best/"])
    assert table.loc["zero/best", ["ami", "mantel_r", "mantel_p"]].isna().all(axis=None)
    assert table.loc[("pairs/best", "subcategory"), "mantel_r"] > 0


# ---- mistakes


def error_lines(place, capsys, *more, **changed):
    printed = refused(place, capsys, lambda: inspect.main(argv(place, *more, **changed)))
    return printed.err.splitlines()


MISTAKES = [
    (["--tasks", "hott", "big"], "--tasks: no task hott; did you mean 'hot'?"),
    (["--tasks", "test"], "--tasks: of 2 tasks, 2 have vectors in all of ... at least 3"),
    (
        ["--taskvecs", "<here>/clustered", "<here>/noise/../clustered"],
        "--taskvecs: <here>/clustered is given twice",
    ),
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
        ("task,a\nhot,b\nbig\n", ["line 3", "1 cells", "header has 2"]),
        ("task,a\nhoot,b\n", ["none of the tasks", "such as"]),
    ],
)
def test_an_error_in_a_table_of_labels_names_its_line(place, capsys, content, fragments):
    place.write(place.folder / "labels.csv", content)
    lines = error_lines(
        place, capsys, "--labels", place.folder / "labels.csv", "--tasks", "hot", "big", "one"
    )
    assert_problem(lines, str(place.folder / "labels.csv"), *fragments)
