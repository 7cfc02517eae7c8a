"""inspect: its outputs for small folders, and its error messages."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import draw_nothing
from matplotlib.image import imread
from mistakes import Place, assert_problem, refused

from dataloader.labels import read_labels
from routing_moe.model.task_vectors import save_task_vectors
from task.task_emb import inspect
from task.task_emb.inspect import names_of_folders

ROOT = Path(__file__).resolve().parents[1]
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


@pytest.fixture
def no_pictures(monkeypatch):
    draw_nothing(monkeypatch)


# ---------------------------------------------------------------------------- outputs


def test_tables_and_pictures_of_two_folders(place, capsys):
    table = inspected(place, "--labels", place.folder / "labels.csv", "--title", "Small")
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
    assert "1 of 7 tasks left out, without a vector in clustered: extra" in printed.err
    assert "1 of 6 tasks without a label of shape: one" in printed.err
    assert imread(place.out / "similarity.png").std() > 0
    assert (place.out / "agreement.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.usefixtures("no_pictures")
def test_the_markdown_table_has_a_row_per_folder_and_the_chance(place):
    table = inspected(place, "--labels", place.folder / "labels.csv", "--names", "the $ one", "chance")
    lines = (place.out / "agreement.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert rows[0] == ["vectors", "category (6)", "subcategory (6)", "shape (5)", "skill (6)"]
    assert [row[0] for row in rows[2:]] == ["the $ one", "chance", "chance"]
    found, other = table.loc["the $ one", "subcategory"], table.loc["chance", "subcategory"]
    assert rows[2][2] == f"1.000 (p {found.p:.2g}) / {found.silhouette:.3f}"
    assert float(rows[4][2]) == pytest.approx((found.chance + other.chance) / 2, abs=0.001)
    assert "6 tasks; cells: accuracy (p) /" in lines[0]


@pytest.mark.usefixtures("no_pictures")
def test_neighbours_are_listed_with_common_categories(place):
    place.write(place.gym / "ontology.json", TREE | {"numbers": {"all": ["one"]}})
    inspected(place, "--neighbours", "2")
    table = pd.read_csv(place.out / "neighbours.csv", dtype=str, keep_default_na=False)
    table = table[table["vectors"] == "clustered"].set_index(["task", "rank"])
    assert len(table) == 6 * 2
    assert table.loc[("hot", "1"), ["neighbour", "same_category", "same_subcategory"]].tolist() == [
        "big", "1", "1"
    ]  # fmt: skip
    assert table.loc[("hot", "2"), ["category", "same_category", "same_subcategory"]].tolist() == [
        "words", "1", "0"
    ]  # fmt: skip
    assert table.loc[("one", "1"), ["neighbour", "same_category", "same_subcategory"]].tolist() == [
        "two",
        "",
        "",
    ]
    centred = np.array(list(CLUSTERED.values())) - np.mean(list(CLUSTERED.values()), axis=0)
    one, two = centred[4], centred[5]
    cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    assert float(table.loc[("one", "1"), "similarity"]) == pytest.approx(cosine, abs=1e-5)


@pytest.mark.usefixtures("no_pictures")
def test_tasks_that_are_not_in_the_ontology_are_reported_and_have_no_category(place, capsys):
    place.write(place.gym / "ontology.json", TREE | {"numbers": {"all": ["one"]}})
    table = inspected(place)
    assert table.loc[("clustered", "category"), ["tasks", "scored"]].tolist() == [5, 4]
    assert "1 of 6 tasks not in the ontology: two" in capsys.readouterr().err
    place.write(place.gym / "ontology.json", {"a": {"b": ["c"]}})
    assert inspected(place)["accuracy"].isna().all()
    assert "name the ontology with --train_dir or --task_ontology" in (place.out / "agreement.md").read_text()


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("words", "tasks"),
    [
        (("train",), ["hot", "big", "cats", "mice"]),
        (("test", "hot"), ["hot", "one", "two"]),
        (("hot", "big", "extra", "one"), ["hot", "big", "one"]),
        (("<gym>/split.json:train",), ["hot", "big", "cats", "mice"]),
    ],
)
def test_tasks_are_chosen_by_name_and_by_section(place, words, tasks, capsys):
    inspected(place, "--tasks", *map(place.filled_in, words))
    table = pd.read_csv(place.out / "neighbours.csv")
    assert list(table["task"].unique()) == tasks
    assert ("left out" in capsys.readouterr().err) == ("extra" in words)


@pytest.mark.usefixtures("no_pictures")
def test_similarities_are_of_centred_vectors(place):
    draw = np.random.default_rng(1)
    shifted = {name: np.array([100.0, 0, 0]) + draw.normal(size=3) for name in NAMES}
    write_folder(place.folder / "shifted", NAMES, shifted)
    inspected(place, folders=["shifted"])
    assert pd.read_csv(place.out / "neighbours.csv")["similarity"].between(-1, 0.999).all()


@pytest.mark.usefixtures("no_pictures")
def test_zero_and_identical_vectors_are_accepted(place):
    write_folder(place.folder / "zero", NAMES, dict.fromkeys(NAMES, [0.0] * 4))
    write_folder(
        place.folder / "pairs", NAMES, {name: [float(name in ("hot", "big")), 1.0] for name in NAMES}
    )
    folders = ["zero", "pairs"]
    table = inspected(place, folders=folders)
    assert table.loc["zero", ["accuracy", "silhouette", "chance", "p"]].isna().all(axis=None)
    assert table.loc[("pairs", "subcategory"), "accuracy"] >= 1 / 3
    row = next(line for line in (place.out / "agreement.md").read_text().splitlines() if "| zero" in line)
    assert [cell.strip() for cell in row.split("|")[2:-1]] == ["-", "-"]
    assert "zero: all distances between tasks are equal" in (place.out / "agreement.md").read_text()
    assert set(pd.read_csv(place.out / "neighbours.csv")["vectors"]) == {"pairs"}


def test_folders_are_named_by_the_shortest_distinct_ends_of_their_paths():
    assert names_of_folders(["a/x/best", "a/y/best/", "b"], None) == ["x/best", "y/best", "b"]
    assert names_of_folders(["p/x/best", "q/x/best", "q/y/best"], None) == ["p/x/best", "q/x/best", "y/best"]
    assert names_of_folders(["a/b", "."], ["one", "two"]) == ["one", "two"]


def test_labels_are_read_verbatim_and_columns_of_0_and_1_are_joined(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("\ufeffskill:b,task,form,skill:a\n1,x,round,1\n\n0,y,,1.0\n0,z,flat,0\n,w,flat,1\n")
    assert read_labels(path) == {
        "skill": {"x": "b+a", "y": "a"},
        "form": {"x": "round", "z": "flat", "w": "flat"},
    }


# ---------------------------------------------------------------------------- mistakes


def error_lines(place, capsys, *more, **changed):
    printed = refused(place, capsys, lambda: inspect.main(argv(place, *more, **changed)))
    return printed.err.splitlines()


@pytest.mark.parametrize(
    ("flags", "fragments"),
    [
        (["--names", "a", "a"], ["--names", "'a' is given twice"]),
        (["--neighbours", "6"], ["--neighbours 6", "less than 6"]),
        (["--tasks", "hott", "big"], ["no task 'hott' in the folders of --taskvecs", "did you mean 'hot'?"]),
        (
            ["--tasks", "test"],
            ["--tasks: of 2 tasks, 2 have vectors in all of", "at least 3"],
        ),
        (
            ["--tasks", "all", "--custom_tasks_splits", "<here>/none.json"],
            ["<here>/none.json: no such file"],
        ),
        (["--train_dir", "<here>/nowhere"], ["--train_dir <here>/nowhere", "no such folder"]),
    ],
)
def test_a_wrong_flag_is_reported_as_it_was_typed(place, capsys, flags, fragments):
    lines = error_lines(place, capsys, *map(place.filled_in, flags))
    assert_problem(lines, *map(place.filled_in, fragments))


def test_sections_need_a_split(place, capsys):
    typed = [word for word in argv(place, "--tasks", "train") if word not in ("--train_dir", str(place.gym))]
    lines = refused(place, capsys, lambda: inspect.main(typed)).err.splitlines()
    assert_problem(lines, "--tasks train: a section needs a split", "give --custom_tasks_splits")


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        ("Task,a\nhot,b\n", ["no column task", "did you mean 'Task'?"]),
        ("task,a,a:b\nhot,b,1\n", ["a column a and columns a:value"]),
        ("task,category\nhot,b\n", ["column category", "rename the column"]),
        ("task,a\nhot,b\nbig,c\nhot,d\n", ["line 4", "task hot", "in an earlier line"]),
        ("task,a\nhot,b\nbig\n", ["line 3", "1 columns", "first line has 2"]),
        ("task,a:b\nhot,1\nbig,yes\none,2\n", ["line 3, column a:b", "'yes'"]),
        ("task,a\nhoot,b\n", ["none of the tasks", "such as"]),
        (b"task,a\nhot,\xff\n", ["cannot be read"]),
    ],
)
def test_an_error_in_a_table_of_labels_names_its_line(place, capsys, content, fragments):
    place.write(place.folder / "labels.csv", content)
    lines = error_lines(
        place, capsys, "--labels", place.folder / "labels.csv", "--tasks", "hot", "big", "one"
    )
    assert_problem(lines, f"--labels {place.folder / 'labels.csv'}", *fragments)


def test_all_errors_are_reported_together(place, capsys):
    (place.folder / "broken").mkdir()
    place.write(place.folder / "broken/id2task.json", "{}")
    place.write(place.folder / "labels.csv", "task,a:b\nhot,3\n")
    more = ["--labels", place.folder / "labels.csv", "--permutations", "0", "--names", "a", "b"]
    lines = error_lines(place, capsys, *more, folders=["clustered", "broken", "missing"])
    assert len(lines) == 5
    assert_problem(lines, "--taskvecs", "broken", "lacks task_vecs.npy")
    assert_problem(lines, "--taskvecs", "missing", "lacks id2task.json and task_vecs.npy")
    assert_problem(lines, "line 2, column a:b", "'3'")


def test_folders_without_common_tasks_and_duplicate_folders_are_errors(place, capsys):
    write_folder(place.folder / "others", ["hot", "x", "y"], {"hot": [1.0], "x": [2.0], "y": [3.0]})
    assert_problem(error_lines(place, capsys, folders=["clustered", "others"]), "1 have vectors in all of")
    assert_problem(
        error_lines(place, capsys, folders=["clustered", "noise/../clustered"]), "clustered is given twice"
    )
