"""add-task: a task of a gym from a table or a data set on the hub, and its problems."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from small_mirror import read_from_mirror, write_parquet
from tiny_runs import contents
from tiny_tables import INPUT, examples, reviews, write_table

from dataloader.building.downloads import CONVERTED
from dataloader.building.raw_file import json_lines
from dataloader.building.recipe import SAMPLES, Raw, text_to_text

# ---------------------------------------------------------------------------- formats


def test_equal_tables_in_any_format_give_equal_gyms(add):
    tables = ("table.csv", "table.tsv", "spreadsheet.CSV", "table.jsonl", "table.parquet")
    for name in tables:
        write_table(Path(name), reviews())
        assert add(**{"from": name}, gym=f"gym_{name}") == 0
    first, *others = (contents(Path(f"gym_{name}")) for name in tables)
    sources = [json.loads(files.pop("reviews/source.json")) for files in (first, *others)]
    assert sources == [{"100": name, "13": name, "input": INPUT} for name in tables]
    assert all(files == first for files in others)
    assert json.loads(first["metrics.json"]) == {"reviews": "ACC"}
    assert json.loads(first["split.json"]) == {"train": ["reviews"], "dev": [], "test": []}
    parts = [f"{seed}_{part}" for seed in (100, 13) for part in ("train", "dev", "test")]
    written = {f"reviews/reviews_4_{part}.tsv" for part in parts}
    assert first.keys() == written | {"metrics.json", "split.json"}


def test_the_line_after_the_names_of_columns_decides_between_delimiters(add):
    lines = [f'"film {i}";{1900 + i};{"bad" if i % 3 else "good"};0' for i in range(100)]
    Path("mixed.csv").write_text("\n".join(["text;year;verdict;a,b,c,d", *lines]))
    assert add(**{"from": "mixed.csv"}) == 0


def test_quotation_marks_in_a_tsv_file_are_text_unless_they_fit_around_cells(add):
    lines = [f'"Good" is {i}\t{i}\tgood\n' for i in range(10)] + [f'"no {i}\t{i}\tbad\n' for i in range(10)]
    for name in ("glue.tsv", "tabs.csv"):
        Path(name).write_text("text\tyear\tverdict\n" + "".join(lines))
        assert add(**{"from": name}, gym=name[:4], input="{text}") == 0
        texts = {source for source, *_ in examples(gym=name[:4]) + examples(gym=name[:4], part="test")}
        assert texts <= {line.split("\t")[0] for line in lines}


def test_quotation_marks_in_a_tsv_file_join_no_rows(add):
    bare = [f"{chr(34) * (i % 9 == 4)}t{i}{chr(34) * (i % 9 == 8)}\t{i}\tgood\n" for i in range(45)]
    cells = [f'"t{i}\nof\ta text"\t{i}\tgood\n' for i in range(45)]
    for name, rows in (("bare", [*bare, "malformed\n"]), ("cells", cells)):
        Path(f"{name}.tsv").write_text("text\tyear\tverdict\n" + "".join(rows))
        flags = dict(input="{text}", sample_by="row", k=18, samples=1, skip_malformed=True)
        assert add(**{"from": f"{name}.tsv"}, gym=name, **flags) == 0
        assert sum(len(examples(gym=name, part=part)) for part in ("train", "dev", "test")) == 45


def test_an_answer_in_nearly_every_input_is_a_warning(add, capsys):
    pairs = [[f"a{i}", f"b{i}"][:: 1 - 2 * (i % 2)] for i in range(40)]
    rows = [{"text": f"t{i}", "a": f"a{i}", "some": pair} for i, pair in enumerate(pairs)]
    table = write_table(Path("t.jsonl"), rows)
    for field, warned in (("a", True), ("some", False)):
        assert add(**{"from": table}, name=field, input=f"{{text}} {{{field}}}", output="{a}") == 0
        assert ("{a} of the input is the answer in 40 of 40 rows" in capsys.readouterr().err) == warned


def test_several_answers_come_from_a_list_a_key_or_columns(add):
    rows = [{"q": f"q {i}", "all": [f"a{i}", f"b{i} "], "a": f"a{i}", "b": f"b{i}"} for i in range(20)]
    rows += [{"q": f"q {i}", "all": [f"a{i}"], "a": f"a{i}", "b": None} for i in range(20, 30)]
    write_table(Path("t.jsonl"), [row | {"spans": [{"text": text} for text in row["all"]]} for row in rows])
    outputs = {"list": ["{all}"], "columns": ["{a}", "{b}"], "key": ["{spans[text]}"]}
    for name, output in outputs.items():
        assert add(name=name, **{"from": "t.jsonl"}, input="{q}", output=output, metric="QA-F1") == 0
    written = [[(source, outputs) for source, outputs, _ in examples(name, "test")] for name in outputs]
    assert all(each == written[0] for each in written)
    assert {len(outputs) for _, outputs in written[0]} == {1, 2}


def test_options_and_answers_by_index_or_letter(add):
    rows = [{"q": f"q {i}", "choices": [f"x{i}", f"y{i}", "none"], "right": i % 3} for i in range(40)]
    write_table(Path("t.parquet"), [row | {"letter": "ABC"[row["right"]]} for row in rows])
    for name, output in (("index", "{right}"), ("letter", "{letter}")):
        flags = dict(input="{q} {choices}", output=output, options="{choices}", labels="{choices}")
        assert add(name=name, **{"from": "t.parquet"}, **flags) == 0
    assert examples("index") == examples("letter")
    for source, outputs, options in examples("index"):
        i = int(source.split()[1])
        assert options == (f"x{i}", f"y{i}", "none")
        assert source == f"q {i} (A) x{i} (B) y{i} (C) none"
        assert outputs == (options[i % 3],)


def test_labels_get_names(add):
    """Also of floats, as pandas writes numbers if one is missing."""
    rows = [{"text": f"scene {i}", "label": float(i % 2)} for i in range(40)]
    write_table(Path("t.parquet"), [*rows, {"text": "scene", "label": None}])
    flags = dict(input="{text}", output="{label}", labels=["bad", "good\n"], skip_malformed=True)
    assert add(**{"from": "t.parquet"}, **flags) == 0
    assert all(outputs == (("bad", "good")[int(source[-1]) % 2],) for source, outputs, _ in examples())


def test_numbers_of_16_and_32_bits_are_written_as_they_were(add):
    numbers = {"x": [3.4, None, 0.1] * 20, "n": [[i + 0.2] for i in range(60)], "s": [{"v": 1.7}] * 60}
    numbers["h"] = list(map(np.float16, [2.3] * 60))
    short = pyarrow.float32()
    kinds = dict(x=short, n=pyarrow.list_(short), s=pyarrow.struct([("v", short)]), h=pyarrow.float16())
    parquet.write_table(pyarrow.table(numbers, pyarrow.schema([*kinds.items()])), "t.parquet")
    flags = dict(input="{s[v]} {h} {n}", output="{x}", skip_malformed=True, sample_by="row")
    assert add(**{"from": "t.parquet"}, **flags) == 0
    for source, outputs, _ in examples():
        assert re.fullmatch(r"1\.7 2\.3 \(A\) \d+\.2", source)
        assert outputs in (("3.4",), ("0.1",))


def test_a_binary_column_is_text_in_utf_8(add, capsys):
    rows = [{"text": f"film \u00e9{i}".encode(), "verdict": b"good"} for i in range(40)]
    flags = {"from": write_table(Path("t.parquet"), [*rows, {"text": b"\xff", "verdict": b"x"}])}
    assert add(**flags, input="{text}", sample_by="row") == 2
    assert "t.parquet:41: column 'text' is binary, not UTF-8 text" in one_error(capsys)
    assert add(**flags, input="{text}", sample_by="row", skip_malformed=True) == 0
    assert all(text.startswith("film \u00e9") and outputs == ("good",) for text, outputs, _ in examples())


@pytest.fixture
def on_hub(add, tmp_path, monkeypatch):
    """add, and reviews on a hub: labels are numbers, those of the split test are unknown."""
    for split, rows in (("train", reviews()), ("validation", reviews(9)), ("test", reviews(9))):
        rows = [row | {"verdict": -1 if split == "test" else int(row["verdict"] == "good")} for row in rows]
        write_parquet(tmp_path, "me/reviews", f"films/{split}/0000.parquet", rows, CONVERTED)
    read_from_mirror(monkeypatch, tmp_path)
    return add


def test_a_data_set_on_the_hub_gives_the_same_task(on_hub):
    write_table(Path("validation.csv"), reviews(9))
    assert on_hub(gym="file", test_from="validation.csv") == 0
    tables = {"from": "hub:me/reviews", "test_from": "hub:me/reviews:films:validation"}
    assert on_hub(**tables, labels=["bad", "good"]) == 0
    for part in ("train", "dev", "test"):
        assert examples(part=part) == examples(part=part, gym="file")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("hub:me/reviews:films:dev", "films has no split dev (it has test, train, validation)"),
        ("hub:me/nothing", "--from hub:me/nothing: huggingface.co/datasets/me/nothing is not in "),
        ("hub:me / x", "--from hub:me / x: expected hub:owner/name[:config[:split]]"),
    ],
)
def test_what_is_not_on_the_hub_is_one_clear_error(on_hub, capsys, place, message):
    assert on_hub(**{"from": place}, labels=["bad", "good"]) == 2
    assert message in one_error(capsys)


# ---------------------------------------------------------------------------- bad input


def one_error(capsys) -> str:
    """What was printed, a single error; nothing was written."""
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("error: ") == 1, text
    assert not Path("gym").exists()
    return text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(input="{tekst}"), "reviews.csv has no column 'tekst'; did you mean 'text'?"),
        (dict(input="{text"), "--input '{text': write {column}"),
        (dict(input="\udcff {text}"), "--input '\\udcff {text}': not UTF-8 text"),
        (dict(name="my task"), "--name 'my task': expected letters"),
        (dict(name="train"), "--name train: a section of the split has this name"),
        (dict(name="all"), "--name all: a section of the split has this name"),
        (dict(name="boolq__mine"), "--name boolq__mine: boolq is a task of CrossFit"),
        ({"from": "reviws.csv"}, "--from reviws.csv: No such file"),
        ({"from": "reviews.xlsx"}, "expected a file *.csv, *.tsv, *.jsonl, *.parquet, or hub:owner/name["),
        (
            dict(k=20),
            "beside the test rows, reviews.csv has 27 of the second most frequent label; give --k 13",
        ),
        (dict(test_from="reviews.csv"), "--test_from: it has every input of --from reviews.csv"),
        (dict(metric="Pearson-Correlation"), "reviews.csv:2: the answer 'good' is not a number"),
        (dict(options=["good", "fair"]), "holds none of the outputs ('bad' is not"),
        (dict(labels=["a", "b"]), "csv:2: the label 'good' has no name in --labels"),
    ],
)
def test_a_wrong_flag_is_one_clear_error(add, capsys, changed, message):
    assert add(**changed) == 2
    assert message in one_error(capsys)


HEAD = "text,year,verdict\n"
LINE = '{"text": 1, "year": 2, "verdict": "a"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "t.csv does not begin with a line of column names"),
        ("t.csv", "text,year,text\na,b,c\n", "t.csv: the column 'text' is there twice"),
        ("t.csv", HEAD, "t.csv has no rows"),
        ("t.csv", HEAD + "a,1,b\n\na,1\n", "t.csv:4: 2 cells, the header has 3"),
        ("t.csv", HEAD + '"a\nb",1,b\na,1,"b\nc,2,d\n', "t.csv, line 4: unexpected end of data"),
        ("t.csv", HEAD + "a,1,b\n ,1,b\na,1,\n", "csv:3: column 'text' is empty"),
        ("t.csv", HEAD.encode() + b"a,1,b\n\xe9,1,b\n", "t.csv, line 3: not UTF-8 text; save the file"),
        ("t.csv", HEAD + "a,1,b\n", "--from t.csv: too few rows to keep 20% for a test file"),
        ("t.jsonl", LINE + "{\n", "t.jsonl:2: not valid JSON"),
        ("t.jsonl", LINE.replace("1", '{"a": 1}'), "1: 'text' is an object; name a key of it: text[a]"),
        ("t.jsonl", LINE.replace("1", "NaN"), "jsonl:1: column 'text' is empty"),
        ("t.parquet", b"PAR1", "--from t.parquet: it cannot be read as parquet"),
    ],
)
def test_a_malformed_table_is_one_error_with_its_lines(add, capsys, name, content, message):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert add(**{"from": name}, input="{text} {year}") == 2
    assert message in one_error(capsys)


def test_the_empty_columns_of_an_answer_are_named(add, capsys):
    Path("t.csv").write_text("q,a,b,c\nx,1,,\n")
    assert add(**{"from": "t.csv"}, input="{q}", output=["{a} {b}", "{c}"]) == 2
    assert "t.csv:2: column 'b' is empty, column 'c' is empty" in one_error(capsys)


def test_nothing_that_exists_is_overwritten(add, capsys):
    assert add() == 0
    before = contents(Path("gym"))
    assert add() == 0  # the same again changes nothing
    for changed, message in (
        (dict(input="{text}"), "gym/reviews/reviews_4_100_dev.tsv is not what this call would write"),
        (dict(metric="EM"), "--metric EM: gym/metrics.json has ACC; change it there"),
        (dict(section="dev"), "--section dev: gym/split.json has train; change it there"),
    ):
        assert add(**changed) == 2
        assert message in capsys.readouterr().err
    assert contents(Path("gym")) == before
    assert add(samples=3) == 0  # adds the missing sample
    after = contents(Path("gym"))
    assert len(after) == len(before) + 3
    assert [name for name in before if before[name] != after[name]] == ["reviews/source.json"]


# ---------------------------------------------------------------------------- the rows of each file


def test_samples_by_row_are_those_of_the_gym_builder(add, build, recipes):
    """The same rows as a recipe of build-gym, which reads raw files."""
    write_table(Path("mirror/data.example.org/reviews.jsonl"), reviews())
    source = Raw(json_lines, train="https://data.example.org/reviews.jsonl")
    recipes["reviews"] = text_to_text(
        "reviews", source, splits=("train",), input=INPUT, output="{verdict}", metric="ACC", k=4
    )
    assert build("--samples", *map(str, SAMPLES), tasks=["reviews"]) == 0
    assert add(gym="own", samples=5, sample_by="row") == 0
    built, added = (
        {name: content for name, content in contents(gym).items() if name.endswith(".tsv")}
        for gym in (build.gym, Path("own"))
    )
    assert len(added) == 15
    assert added == built


def test_labels_are_sampled_by_label_and_other_answers_by_row(add):
    assert add() == 0
    assert [len(examples(part=part)) for part in ("train", "dev", "test")] == [8, 8, 20]
    assert add(name="by_row", sample_by="row") == 0
    assert len(examples("by_row")) == 4
    assert add(name="years", output="{year}", metric="EM", k=None) == 0
    assert len(examples("years")) == 32


@pytest.mark.parametrize(
    ("labels", "flags", "k", "note"),
    [
        (dict(bad=30, good=60, god=1), {}, 12, "fewer than 24 train and dev rows of 'god' (1)"),
        (dict(bad=30, good=60, god=4), dict(k=7), 7, "fewer than 14 train and dev rows of 'god' (3)"),
        (dict(bad=50), dict(metric="QA-F1"), 20, "k lowered from 32 to 20"),
    ],
)
def test_a_default_k_is_lowered_to_what_two_labels_fill(add, capsys, labels, flags, k, note):
    cells = [label for label, n in labels.items() for _ in range(n)]
    rows = [{"text": f"t{i}", "year": i, "verdict": label} for i, label in enumerate(cells)]
    write_table(Path("t.csv"), rows)
    assert add(**{"from": "t.csv", "k": None} | flags) == 0
    assert note in capsys.readouterr().err
    sizes = Counter(outputs[0] for _, outputs, _ in examples())
    assert {sizes[label] for label in ("bad", "good") if label in labels} == {k}
    test = Counter(outputs[0] for _, outputs, _ in examples(part="test"))
    assert test["bad"] == 0.2 * labels["bad"]


def test_train_tasks_have_one_sample_unless_more_are_asked_for(add):
    """Training pools samples: with several, dev rows are train rows of another sample."""

    def seeds(task: str) -> set[str]:
        return {path.stem.split("_")[-2] for path in Path("gym", task).glob("*.tsv")}

    assert add(samples=None, name="one") == 0
    assert seeds("one") == {"100"}
    assert add(samples=None, name="unseen", section="test") == 0
    assert add(samples=None, name="unseen") == 0  # split.json has it in the section test
    assert seeds("unseen") == set(map(str, SAMPLES))


def test_an_input_is_in_one_file_of_a_sample(add, capsys):
    rows = reviews(60) * 5
    write_table(Path("copies.csv"), [*rows, rows[0] | {"verdict": "bad"}])
    write_table(Path("test.csv"), [*reviews(3), reviews(3)[0]])
    assert add(**{"from": "copies.csv"}) == 0
    assert "copies.csv: 241 rows left out" in capsys.readouterr().err
    inputs = [source for part in ("train", "dev", "test") for source, *_ in examples(part=part)]
    assert len(set(inputs)) == len(inputs) == 8 + 8 + 12
    assert add(name="tested", test_from="test.csv") == 0
    notes = capsys.readouterr().err
    assert "reviews.csv: 3 rows left out" in notes
    assert "--test_from: 1 row left out, whose input an earlier row has" in notes
    tested = [source for source, *_ in examples("tested", "test")]
    assert tested == [INPUT.format_map(row) for row in reviews(3)]
    trained = {source for part in ("train", "dev") for source, *_ in examples("tested", part)}
    assert not trained & set(tested)
