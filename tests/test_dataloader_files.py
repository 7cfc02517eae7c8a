"""Splits, lists of tasks, ontology, task files and gym folders: reading them, and errors for wrong files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mistakes import UNUSUAL_JSON, Place

import dataloader
from dataloader import PUBLISHED_SPLITS, Example, Gym, InputError, Ontology, load_split, read_task_file
from dataloader.gym import tasks_named
from dataloader.metrics import METRIC_FUNCTIONS, METRICS
from routing_moe.cli.list_tasks import main as list_tasks


@pytest.fixture
def write(tmp_path):
    """write("name", content): creates a file with these bytes, text or JSON; returns its path."""
    return Place(tmp_path, tmp_path, tmp_path).write


@pytest.fixture
def small_gym(tmp_path, write):
    """Two tasks: boolq with two samples, aeslc with one."""
    for seed in (13, 100):
        for part in ("train", "dev", "test"):
            rows = f"q {seed} {part} 1\tyes\nq {seed} {part} 2\tno\ttrue\n"
            write(f"boolq/boolq_32_{seed}_{part}.tsv", rows)
    for part in ("train", "dev", "test"):
        write(f"aeslc/aeslc_32_13_{part}.tsv", f"mail {part}\tsubject\n")
    return tmp_path


# ---------------------------------------------------------------------------- splits


@pytest.mark.filterwarnings("ignore:.*trains on sick")
def test_the_eight_published_splits_load_and_hold_only_known_tasks():
    splits = {path.stem: load_split(path) for path in PUBLISHED_SPLITS.glob("*.json")}
    assert splits.pop("t0_held_out")  # our own
    assert len(splits) == 8
    assert {len(splits["random"].section(name)) for name in ("train", "dev", "test")} == {120, 20}
    assert len(splits["random"].all) == 160
    assert all(task in METRICS for split in splits.values() for task in split.all)
    assert set(METRICS.values()) == set(METRIC_FUNCTIONS)


def test_the_published_leak_loads_with_a_warning():
    with pytest.warns(UserWarning, match="trains on sick"):
        load_split(PUBLISHED_SPLITS / "train_non_nli_test_nli.json")


def test_all_is_the_union_in_order_plus_other_listed_tasks(write):
    split = load_split(write("s.json", {"train": ["b", "a"], "test": ["c"], "all": ["a", "d"]}))
    assert split.all == ("b", "a", "c", "d")
    assert split.section("all") == split.all
    assert split.dev == split.section("dev") == ()
    with pytest.raises(InputError, match="did you mean 'train'"):
        split.section("trian")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"train": [', r"not valid JSON.*column 12"),
        (b'{"train": ["\xff"]}', "not UTF-8"),
        (b'{"train": ["a"], "train": ["b"]}', "not valid JSON: the key 'train' is given twice"),
        (["a"], "a list, expected a split file"),
        ({"dev": ["a"]}, 'no "train" key'),
        ({"train": ["a", 3]}, '"train" is not a list of task names'),
        ({"train": ["a", "b", "a"]}, '"train" lists a more than once'),
        ({"train": ["a", "b"], "dev": ["b"]}, 'in "train" and in "dev": b'),
        ({"train": ["a"], "dev": ["b", "c"], "test": ["c"]}, 'in "dev" and in "test": c; name each task in'),
    ],
)
def test_a_wrong_split_file_is_named_with_its_problem(write, content, message):
    with pytest.raises(InputError, match=message) as caught:
        load_split(write("wrong.json", content))
    assert "wrong.json" in str(caught.value)


# ---------------------------------------------------------------------------- lists of tasks


def test_sections_and_names_select_tasks_once_and_in_order(world, tmp_path):
    split = world.gym / "split.json"
    other = tmp_path / "other.json"
    other.write_text('{"train": ["a"], "dev": ["b", "colour"]}')
    assert tasks_named(["test"], split) == ["plural"]
    listed = tasks_named(["count", "test", "count", f"{other}:dev"], split)
    assert listed == ["count", "plural", "b", "colour"]
    assert tasks_named(["all"], split) == ["colour", "count", "opposite", "plural"]
    assert tasks_named(["count", "unheard_of"], "no split is read") == ["count", "unheard_of"]
    with pytest.raises(InputError, match=r"expected file.json:section, such as .*other.json:test"):
        tasks_named([str(other)], split)


def test_tasks_that_the_gym_lacks_are_an_error_for_each_word(world, tmp_path):
    split = tmp_path / "other.json"
    split.write_text('{"train": ["count", "a"], "dev": ["b", "c"]}')
    assert tasks_named(["count"], split, world.gym) == ["count"]
    for words, problem in (
        (["train"], f"{split}: no task 'a' in {world.gym} (4 tasks there, one folder each)"),
        (["dev"], f"{split}: 2 tasks are not in {world.gym}: b, c"),
        (["count", "cuont"], f"no task 'cuont' in {world.gym}; did you mean 'count'?"),
        (["tset"], f"no task 'tset' in {world.gym}; did you mean 'test'?"),
    ):
        with pytest.raises(InputError) as caught:
            tasks_named(words, split, world.gym)
        assert caught.value.problems == [problem]


def test_the_command_prints_one_line_per_task_or_an_error(world, capsys):
    split = str(world.gym / "split.json")
    assert list_tasks(["--split", split, "train", "plural"]) == 0
    assert capsys.readouterr().out == "colour\ncount\nopposite\nplural\n"
    assert list_tasks(["--split", split, "dev"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"error: {split}: the dev section is empty\n")


def test_a_reader_that_is_gone_ends_a_command_without_a_message(world, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    listed = f"{sys.executable} -m routing_moe.cli.entry list-tasks --split {world.gym / 'split.json'} train"
    words = ["bash", "-c", f"{listed} | true; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


# ---------------------------------------------------------------------------- ontology


def test_the_shipped_ontology_and_descriptions_have_exactly_the_tasks_with_a_metric():
    ontology = Ontology.load()
    assert set(ontology.tasks) == set(METRICS)
    assert len(ontology.tasks) == 160
    assert ontology.category("boolq") == ("qa", "binary")
    assert list(ontology.categories) == ["classification", "conditional generation", "other", "qa"]
    assert "nli" in ontology.categories["classification"]
    path = Path(dataloader.__file__).parent / "descriptions.json"
    descriptions = json.loads(path.read_text(encoding="utf-8"))
    assert tuple(descriptions) == ontology.tasks
    assert len({sentence.casefold() for sentence in descriptions.values()}) == 160


def test_templates_have_the_place_and_category_of_their_data_set_unless_they_are_listed():
    ontology = Ontology({"x": {"s": ["t3", "t1"]}, "y": {"s": ["t2", "t1__own"]}})
    tasks = ["zz__a", "t2__b", "t1__own", "t3__b", "t1__a", "t3__a", "t1", "t1__a"]
    ordered = ["t3__a", "t3__b", "t1", "t1__a", "t1__a", "t2__b", "t1__own", "zz__a"]
    assert ontology.order(tasks) == ordered
    assert ontology.category("t1__a") == ("x", "s")
    assert ontology.category("t1__own") == ("y", "s")
    assert ontology.category("zz__a") == ("uncategorised", "uncategorised")


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"x": ["t"]}, 'tree.json: "x" must be'),
        ({"x": {"s": "t"}}, '"x" / "s" must be a list'),
        ({"all": {"s": ["t"]}}, 'tree.json: "all" is a category that tables of results add; rename it'),
        ({"uncategorised": {"s": ["t"]}}, '"uncategorised" is a category that tables'),
        ({"x": {"s": ["t"]}, "y": {"s": ["t"]}}, 'task \'t\' is in "x" / "s" and again in "y" / "s"'),
    ],
)
def test_a_wrong_ontology_file_is_named_with_the_place(write, tree, message):
    with pytest.raises(InputError, match=message):
        Ontology.load(write("tree.json", tree))


# ---------------------------------------------------------------------------- one task file


def test_line_ends_of_windows_are_read_and_other_line_separators_are_text(write):
    text = "a\u2028b\x0bc\x85d\x0ce\x1cf"
    for mark in ("", "\ufeff"):  # a byte-order mark is dropped
        rows, _ = read_task_file(write("t.tsv", f"{mark}{text}\tyes\r\nx\tno\r\n"))
        assert rows == [(text, ("yes",)), ("x", ("no",))]


def test_a_line_is_an_input_and_its_answers_with_spaces_around_them_dropped(write):
    rows, skipped = read_task_file(write("t.tsv", " in  put \t yes \tno\t\nx\ty"))
    assert rows == [("in  put", ("yes", "no")), ("x", ("y",))]
    assert skipped == 0


def test_malformed_lines_are_one_error_with_lines_reasons_and_count_or_skipped(write):
    bad = [b"only an input", b"\tmoved answer", b"input\t \t", b"", b"a\rb\tc", b"caf\xe9\tx", b" \t "]
    path = write("boolq_32_100_train.tsv", b"\n".join([b"good\tyes", *bad, b"good too\tno"]))
    with pytest.raises(InputError) as caught:
        read_task_file(path)
    (problem,) = caught.value.problems
    assert "7 malformed lines" in problem
    assert "--skip_malformed" in problem
    reasons = ("no answer", "empty input", "empty answer", "blank line", "carriage return inside")
    for number, reason in enumerate(reasons, start=2):
        assert f"boolq_32_100_train.tsv:{number}: {reason}" in problem
    assert "tsv:7:" not in problem  # only the first five
    good = [("good", ("yes",)), ("good too", ("no",))]
    assert read_task_file(path, skip_malformed=True) == (good, 7)


@pytest.mark.parametrize("skip", [False, True])
def test_a_file_without_any_usable_line_is_an_error(write, tmp_path, skip):
    for content, message in ((b"", "is empty"), (b"\xef\xbb\xbf", "is empty"), (b"\n\n", "blank line")):
        with pytest.raises(InputError, match=message):
            read_task_file(write("t.tsv", content), skip)
    with pytest.raises(InputError, match="no such file"):
        read_task_file(tmp_path / "absent.tsv", skip)


# ---------------------------------------------------------------------------- JSON lines


def line(source="q", outputs=("yes",), **more) -> str:
    return json.dumps({"input": source, "outputs": list(outputs), **more}, ensure_ascii=False)


def test_a_line_is_an_object_whose_texts_keep_tabs_and_line_breaks(write):
    rows = [line(" a\tb\nc ", ["yes", " no\nnot "], options=["no\nnot", "maybe"]), line("x", ["y"], id=7)]
    assert read_task_file(write("t.jsonl", "\n".join(rows))) == (
        [("a\tb\nc", ("yes", "no\nnot"), ("no\nnot", "maybe")), ("x", ("y",), ())],
        0,
    )
    assert read_task_file(write("t.jsonl", line("\n \n    a\n\tb \n")))[0][0][0] == "    a\n\tb"
    assert read_task_file(write("t.jsonl", line(options=None)))[0] == [("q", ("yes",), ())]
    assert read_task_file(write("t.jsonl", f"{line()}\r\n{line()}"))[0] == [("q", ("yes",), ())] * 2


WRONG = [
    ('{"input": "q", ', "not valid JSON: .* (column 16)"),
    ('["q", "yes"]', "holds a list, expected a JSON object"),
    ('{"outputs": ["yes"]}', 'no "input" (its keys: outputs)'),
    ('{"input": " ", "outputs": ["yes"]}', '"input" is empty'),
    ('{"input": "q", "outputs": "yes"}', '"outputs" is a string, expected a list of strings'),
    ('{"input": "q", "outputs": []}', '"outputs" is an empty list'),
    ('{"input": "q", "outputs": ["yes", null]}', '"outputs[1]" is null, expected a string'),
    ('{"input": "q", "outputs": ["yes", " "]}', '"outputs[1]" is empty'),
    *UNUSUAL_JSON,
    (line(options=["no", "yes", " no"]), '"options" are not two or more different texts'),
    (line(options=["no", "maybe"]), "\"options\" holds none of the outputs ('yes' is not among them)"),
    (line(before=[{"role": "user"}]), 'the roles in "before" are user; expected user and assistant in turn'),
    ("", "blank line"),
]


@pytest.mark.parametrize(("wrong", "problem"), WRONG)
def test_a_malformed_line_is_reported_with_file_and_number(write, wrong, problem):
    path = write("t_2_13_train.jsonl", f"{line()}\n{wrong}\n")
    with pytest.raises(InputError) as caught:
        read_task_file(path)
    output = str(caught.value)
    assert output.startswith(f"{path}: 1 malformed line (add-task, train, finetune and vectors leave ")
    place = f"\n  {path.name}:2: "
    start, *rest = problem.split(".*")
    assert place + start in output
    assert all(part in output for part in rest)
    assert read_task_file(path, skip_malformed=True) == ([("q", ("yes",), ())], 1)


# ---------------------------------------------------------------------------- the folder


def test_samples_are_chosen_by_all_first_seed_or_prefix(small_gym):
    for chosen, seeds in (("all", (100, 13)), ("first", (100,)), ("13", (13,)), ("boolq_32_13", (13,))):
        expected = [(seed, n) for seed in seeds for n in (1, 2)]
        examples = Gym(small_gym).examples("boolq", "dev", chosen)
        assert [example.input for example in examples] == [f"q {seed} dev {n}" for seed, n in expected]
        assert examples[1].outputs == ("no", "true")
        assert examples[1].task == "boolq"
        assert {example.sample for example in examples} == {f"boolq_32_{seed}" for seed in seeds}


def test_a_pool_is_sorted_by_task_and_limited_per_file(small_gym):
    gym = Gym(small_gym)
    assert [e.task for e in gym.pool(["boolq", "aeslc"], "train")] == ["aeslc"] + ["boolq"] * 4
    assert [e.input for e in gym.pool(["boolq"], "train", limit=1)] == ["q 100 train 1", "q 13 train 1"]


def test_errors_of_unknown_names_list_the_known_ones(small_gym):
    gym = Gym(small_gym)
    with pytest.raises(InputError, match=r"no task 'boolQ'.*did you mean 'boolq'.*2 tasks"):
        gym.examples("boolQ", "train")
    with pytest.raises(InputError, match=r"no sample '42' \(all, first, or one of boolq_32_100, boolq"):
        gym.examples("boolq", "train", "42")
    with pytest.raises(InputError, match="unknown part 'tets'; did you mean 'test'"):
        gym.examples("boolq", "tets")
    with pytest.raises(InputError, match="no such folder"):
        Gym(small_gym / "absent")


def test_the_metric_comes_from_the_gyms_own_file_first(small_gym, write):
    assert Gym(small_gym).metric("boolq") == METRICS["boolq"] == "ACC"
    with pytest.raises(InputError, match=r"no metric known for task 'mine': write .*metrics\.json.*Rouge-L"):
        Gym(small_gym).metric("mine")
    write("metrics.json", {"boolq": "EM", "mine": "Rouge-L", "other": "ROUGE-L"})
    gym = Gym(small_gym)
    assert gym.metric("boolq") == gym.metric("boolq__exam") == "EM"
    assert gym.metric("mine") == gym.metric("mine__a") == "Rouge-L"
    assert gym.metric("sick__a") == METRICS["sick"]
    with pytest.raises(InputError, match="no metric known for task 'new__a'"):
        gym.metric("new__a")
    write("metrics.json", {"boolq": "EM", "boolq__exam": "ACC"})
    assert Gym(small_gym).metric("boolq__exam") == "ACC"
    with pytest.raises(InputError, match="unknown metric 'ROUGE-L' for task 'other'; did you mean 'Rouge-L'"):
        gym.metric("other")


def test_a_pool_names_every_problem_of_its_files(small_gym, write):
    write("mine/mine_16_13_train.tsv", "no answer\n")
    write("stars/stars_16_13_dev.tsv", "a film\t4\nanother\tgood\n")
    write("metrics.json", {"stars": "Pearson-Correlation"})
    for part, of_mine, of_stars in (
        ("train", "mine_16_13_train.tsv:1: no answer", "stars_16_13_train.tsv: no such"),
        ("dev", "mine_16_13_dev.tsv: no such file", "stars_16_13_dev.tsv:2: the answer 'good'"),
    ):
        with pytest.raises(InputError) as caught:
            Gym(small_gym).pool(["boolqq", "mine", "aeslc", "stars"], part)
        assert len(caught.value.problems) == 3
        assert all(text in str(caught.value) for text in ("no task 'boolqq'", of_mine, of_stars))
    assert [row.input for row in Gym(small_gym, skip_malformed=True).examples("stars", "dev")] == ["a film"]


def test_a_sample_may_have_both_kinds_of_files(write, tmp_path):
    write("t/t_2_13_train.tsv", "a\tyes\nb\tno")
    write("t/t_2_13_test.jsonl", line("c", ["yes"], options=["yes", "no"]))
    write("t/t_2_21_train.jsonl", line("d\te"))
    write("t/t_2_21_test.tsv", "f\tno")
    write("notes/readme.jsonl", line())
    gym = Gym(tmp_path)
    assert gym.tasks() == ["t"]
    assert gym.samples("t") == ["t_2_13", "t_2_21"]
    assert [example.input for example in gym.examples("t", "train")] == ["a", "b", "d\te"]
    assert gym.examples("t", "test", "13") == [Example("t", "t_2_13", "c", ("yes",), ("yes", "no"))]
    assert gym.examples("t", "test", "21")[0].options == ()
    assert gym.has_part("t", "test")
    assert not gym.has_part("t", "dev")
    assert not gym.has_part("absent", "train")


def test_copies_of_files_are_no_samples(write, tmp_path):
    for name in ("._t_2_13_train.tsv", "Copy of t_2_13_train.tsv", "backup_train.tsv", "t_2_13_train.tsv"):
        write(f"t/{name}", "a\tyes" if name == "t_2_13_train.tsv" else b"\xff")
    write("u/backup_train.tsv", "a\tyes")
    assert (Gym(tmp_path).tasks(), Gym(tmp_path).samples("t")) == (["t"], ["t_2_13"])
    assert len(Gym(tmp_path).examples("t", "train", "first")) == 1


def test_a_part_with_both_extensions_is_a_problem_that_names_both(write, tmp_path):
    for ending, content in (("tsv", ["a\tyes"]), ("jsonl", line())):
        write(f"t/t_2_13_dev.{ending}", content)
    path = tmp_path / "t" / "t_2_13_dev"
    problem = f"{path}.tsv and t_2_13_dev.jsonl both exist; keep only one of them"
    with pytest.raises(InputError) as caught:
        Gym(tmp_path).examples("t", "dev")
    assert caught.value.problems == [problem]


def test_every_file_of_the_real_gym_reads_without_a_problem(real_gym):
    gym = Gym(real_gym)
    tasks = gym.tasks()
    assert len(tasks) == 105
    assert len(gym.pool(tasks, "train")) == 23_985
    assert gym.pool(tasks, "dev")
    assert gym.pool(tasks, "test", "first")
    assert all(map(gym.metric, tasks))
    assert all(len(gym.samples(task)) == 5 for task in tasks)
