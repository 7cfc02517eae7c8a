"""The commands that answer new texts or tables and export a BART, and the files that they read and write."""

import json
import os

import pandas as pd
import pytest
import tiny_runs
from mistakes import UNUSUAL_JSON
from test_durability import TAKEN
from tiny_answers import PLURALS, ROUTE, TEXTS, load
from tiny_grids import QUICK, grid_flags
from tiny_runs import ROWS, World, contents
from tiny_tables import INPUT, add_task, examples, reviews, write_table

from dataloader.atomic_files import folder_lock
from routing_moe import Routed
from routing_moe.answering import answers_file
from routing_moe.answering import routed as routed_module
from routing_moe.checkpoints.assemble import keep_what_is_known
from routing_moe.checkpoints.find import find_model
from routing_moe.cli.answer import main as answer
from routing_moe.cli.export import main as export
from routing_moe.cli.finetune import main as finetune
from routing_moe.model.mixtures import load_mixture
from routing_moe.model.task_vectors import save_task_vectors

pytestmark = pytest.mark.usefixtures("quick_pictures")


def test_every_way_to_a_route_is_a_flag(finished, given_run, tmp_path):
    model, flat = load(finished), load(given_run)
    row = model.model.task_vectors.weight.detach()[0].numpy()
    save_task_vectors(tmp_path, ["new"], row[None])
    (tmp_path / "routes.json").write_text('{"new": [1, 0, 0]}')
    pairs = [tuple(line.split("\t")[:2]) for line in ROWS["plural"]]
    train = tmp_path / "plural_12_100_train.tsv"
    train.write_text("".join(f"{line}\n" for line in ROWS["plural"]))
    learned = dict(steps=3, rate=0.5, seed=3)
    for place, flags, expected in (
        (finished, dict(like=train), model.task("plural", inputs=PLURALS)),
        (finished, dict(examples=train, **learned), model.task("plural", examples=pairs, **learned)),
        (finished, dict(task="new", taskvecs=tmp_path), model.task("new", vectors=tmp_path)),
        (given_run, dict(task="new", task_routes=tmp_path / "routes.json"), flat.task("new", route=ROUTE)),
    ):
        assert answer(typed(tmp_path, place, **flags)) == 0
        first, _ = written(tmp_path)
        shown = (expected.name, expected.description, expected.seen, expected.experts)
        assert (first["task"], first["route"], first["seen"], first["experts"]) == shown
        forget(tmp_path)


def typed(tmp_path, place, lines=TEXTS, name="new.txt", **changed) -> list[str]:
    (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    chosen = dict(checkpoint=place, inputs=tmp_path / name, output_file=tmp_path / "answers.jsonl") | changed
    return tiny_runs.typed(chosen)


def written(tmp_path) -> tuple[dict, list[dict]]:
    """The meta file, and the lines."""
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    return json.loads((tmp_path / "answers.meta.json").read_text()), rows


def forget(tmp_path) -> None:
    for name in ("answers.jsonl", "answers.meta.json"):
        (tmp_path / name).unlink()


def test_the_command_writes_a_table_of_the_texts_and_beside_it_the_route(finished, tmp_path, capfd):
    long = " ".join(["word"] * 40)
    assert answer(typed(tmp_path, finished, [*TEXTS, long], task="colour")) == 0
    first, rows = written(tmp_path)
    assert (first["task"], first["route"]) == ("colour", "stored vector")
    assert [row["input"] for row in rows] == [*TEXTS, long]
    assert [row["answer"] for row in rows[:-1]] == load(finished).answer("colour", TEXTS)
    table = pd.read_json(tmp_path / "answers.jsonl", lines=True)
    assert list(table) == ["input", "answer", "score", "option_scores", "was_cut"]
    assert list(table["was_cut"]) == [False] * 6 + [True]
    assert all(list(row) == list(table) for row in rows)
    assert "1 of the texts cut to 24 tokens" in capfd.readouterr().err


def test_a_pipe_is_refused_with_what_to_write(finished, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert answer(typed(tmp_path, finished, task="colour", inputs=tmp_path / "pipe")) == 2
    assert "pipe into --inputs -" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [None, 3])
def test_a_killed_command_is_continued(kept, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(answers_file, "CHUNK", 2)
    monkeypatch.setattr(routed_module, "CHUNK", 2)
    words = typed(tmp_path, finished, task="colour")
    assert answer(words) == 0
    path, meta = tmp_path / "answers.jsonl", tmp_path / "answers.meta.json"
    meta.write_text(meta.read_text().replace("labelled rows of all samples", "what an earlier version said"))
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    path.unlink()
    if kept is not None:
        path.write_text("".join(lines[:kept]) + lines[kept][:9])  # killed while it wrote a line
    read, answered = [], Routed._answered

    def noted(self, task, queries, decoding):
        read.extend(queries)
        return answered(self, task, queries, decoding)

    monkeypatch.setattr(Routed, "_answered", noted)
    assert answer(words) == 0
    assert path.read_text() == whole
    assert len(read) == len(TEXTS) - (kept or 0) // 2 * 2  # whole chunks are kept


def test_a_file_with_other_answers_is_kept(finished, tmp_path, capsys):
    assert answer(typed(tmp_path, finished, task="colour")) == 0
    before = contents(tmp_path)
    for changed, message in (
        (dict(task="count"), "answers.meta.json differs from this call in task, "),
        (dict(num_beams=3), "differs from this call in text settings"),
        (dict(output_file=tmp_path / "new.txt"), "is --inputs; name"),
        (dict(lines=TEXTS[::-1]), "differs from this call in inputs"),
    ):
        flags = dict(task="colour") | changed
        lines = flags.pop("lines", TEXTS)
        assert answer(typed(tmp_path, finished, lines, **flags)) == 2
        assert message in capsys.readouterr().err
        assert contents(tmp_path) == before | {"new.txt": "".join(f"{line}\n" for line in lines).encode()}


def test_lines_that_are_not_the_answers_to_these_texts_are_kept(finished, tmp_path, capsys):
    words, path = typed(tmp_path, finished, task="colour"), tmp_path / "answers.jsonl"
    assert answer(words) == 0
    changed = {
        f"{path.read_text()}mine\n": "has 7 lines, but --inputs 6 texts",
        "mine\n" * 6: "jsonl:1 is not",
    }
    for text, message in changed.items():
        path.write_text(text)
        assert answer(words) == 2
        assert message in capsys.readouterr().err
        assert path.read_text() == text


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.meta.json"])
def test_a_file_that_this_command_did_not_write_is_kept(name, finished, tmp_path, capsys):
    words = typed(tmp_path, finished, task="colour")
    (tmp_path / name).write_bytes(b'{"important": "no line end"}')
    before = contents(tmp_path)
    assert answer(words) == 2
    assert name in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_only_one_command_and_one_process_write_a_file_of_answers(finished, tmp_path, capsys, monkeypatch):
    words = typed(tmp_path, finished, task="colour")
    with folder_lock(tmp_path, lock_file=".answers.jsonl.lock"):
        assert answer(words) == 2
    assert f"error: --output_file answers.jsonl in {tmp_path}: {TAKEN}\n" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert answer(words) == 2
    assert "one process answers" in capsys.readouterr().err
    assert not (tmp_path / "answers.jsonl").exists()


def test_files_of_a_gym_and_json_lines_are_read(finished, tmp_path):
    rows = [json.dumps({"input": "grass", "options": ["green", "red"]}), json.dumps({"input": "snow"})]
    assert answer(typed(tmp_path, finished, rows, "new.JSONL", task="colour")) == 0
    ranked, generated = written(tmp_path)[1]
    assert set(ranked["option_scores"]) == {"green", "red"}
    assert generated["option_scores"] is None
    forget(tmp_path)
    assert answer(typed(tmp_path, finished, ROWS["colour"], "new.tsv", like=tmp_path / "new.tsv")) == 0
    first, rows = written(tmp_path)
    assert first["task"] == "new"
    assert first["route"].startswith("vector of colour (nearest by text")
    assert [row["input"] for row in rows] == [row.split("\t")[0] for row in ROWS["colour"]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(lines=["one", "", "two"]), "new.txt:2: the text is empty"),
        (dict(lines=['{"input": 3}'], name="new.jsonl"), 'new.jsonl:1: expected {"input": text'),
        (dict(lines=[UNUSUAL_JSON[0][0]], name="new.jsonl"), f"jsonl:1: {UNUSUAL_JSON[0][1]}"),
        (dict(lines=[]), "has no texts"),
        (dict(inputs="nowhere.txt"), "--inputs nowhere.txt: cannot be read (No such file"),
        (dict(task="colours"), "did you mean 'colour'"),
        (dict(task=None), "--task is not given"),
        (dict(like=__file__, examples=__file__), "--like and --examples each determine the route"),
        (dict(task=None, task_routes="a.json"), "--task_routes needs --task"),
        (dict(options=["yes", ""]), "--options: an option is empty"),
        (dict(output_file="nowhere/a.jsonl"), "--output_file nowhere/a.jsonl: no such folder nowhere"),
        (dict(checkpoint_name="firts"), "has no checkpoint 'firts'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_line(changed, message, finished, tmp_path, capsys):
    assert answer(typed(tmp_path, **dict(place=finished, task="colour") | changed)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("error:") == 1
    assert "Traceback" not in error


def test_standard_input_is_answered_into_a_new_file(finished, tmp_path, monkeypatch, capsys):
    words = typed(tmp_path, finished, task="colour")
    for code, message in ((0, "answered 6 texts"), (2, "exists already, and standard input has other")):
        with (tmp_path / "new.txt").open("rb") as file:
            monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": file}))
            assert answer([*words[:2], "--inputs", "-", *words[4:]]) == code
        assert message in capsys.readouterr().err
    assert [row["input"] for row in written(tmp_path)[1]] == TEXTS


def test_the_export_command_takes_the_largest_weights_only_if_it_is_asked_to(soft_run, tmp_path, capfd):
    words = tiny_runs.typed(dict(checkpoint=soft_run, task="count", output_dir=tmp_path / "bart"))
    assert export(words) == 2
    assert "error: count: the route mixes" in capfd.readouterr().err
    of_all = tiny_runs.typed(dict(checkpoint=soft_run, adapters=True, argmax=True, output_dir=tmp_path / "x"))
    assert export(of_all) == 2
    assert "--argmax is for a plain model" in capfd.readouterr().err
    assert export([*words, "--argmax"]) == 0
    assert "of the expert of largest weight in each layer" in (tmp_path / "bart/README.md").read_text()


# ---- tables: the template of a task of add-task is kept and applied to new tables

REVIEWS = [f'review: the "plot", scene {i} of {1990 + i}' for i in range(4)]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A world with a run `own` that was trained on a task of add-task, `reviews`."""
    world = World(tmp_path_factory.mktemp("own"))
    table, world.gym = write_table(world / "reviews.csv", reviews()), world / "mine"
    assert add_task(gym=world.gym, **{"from": table}) == 0
    assert add_task(gym=world.gym, **{"from": table}, name="further", input="{text}", section="test") == 0
    world.own = world.run("own", total_steps=2, eval_period=2)
    return world


def answered(place, capsys, code=0, **changed) -> list[dict] | str:
    """Returns the lines of the answers, or the error."""
    capsys.readouterr()
    assert answer(tiny_runs.typed(dict(checkpoint=place, task="reviews") | changed)) == code
    printed = capsys.readouterr()
    return printed.err if code else [json.loads(line) for line in printed.out.splitlines()]


def inputs(place, capsys, **changed) -> list[str]:
    return [line["input"] for line in answered(place, capsys, **changed)]


@pytest.mark.parametrize("ending", ["csv", "tsv", "CSV", "jsonl", "parquet"])
def test_a_table_is_answered_by_the_template_of_its_task(ending, own, tmp_path, capsys):
    assert json.loads((own.gym / "reviews/source.json").read_text())["input"] == INPUT
    table = write_table(tmp_path / f"new.{ending}", reviews(4))
    assert inputs(own.own, capsys, inputs=table) == REVIEWS
    assert inputs(own.own, capsys, inputs=table, input="{year}") == ["1990", "1991", "1992", "1993"]
    assert inputs(own.own, capsys, inputs=table, input=INPUT, task="films", like=table) == REVIEWS
    if ending in ("csv", "CSV", "parquet"):  # a task without a template
        error = answered(own.own, capsys, code=2, inputs=table, task="films", like=own.gym / "split.json")
        assert f'--inputs {table}: say which column is the text, such as --input "{{text}}"' in error


def test_answers_of_a_table_are_those_of_its_texts_and_record_the_template(own, tmp_path, capsys):
    table, file = write_table(tmp_path / "new.csv", reviews(4)), tmp_path / "answers.jsonl"
    (tmp_path / "new.txt").write_text("\n".join(REVIEWS))
    assert answered(own.own, capsys, inputs=table) == answered(own.own, capsys, inputs=tmp_path / "new.txt")
    assert answered(own.own, capsys, inputs=table, output_file=file) == []
    assert json.loads((tmp_path / "answers.meta.json").read_text())["template"] == INPUT
    error = answered(own.own, capsys, code=2, inputs=table, output_file=file, input="{text}")
    assert "answers.meta.json differs from this call in template" in error


def test_other_files_are_read_as_without_a_template(own, tmp_path, capsys):
    (tmp_path / "new.txt").write_text("text,year\nfine,1990\n")
    assert inputs(own.own, capsys, inputs=tmp_path / "new.txt") == ["text,year", "fine,1990"]
    of_gym = own.gym / "reviews/reviews_4_100_test.tsv"
    assert inputs(own.own, capsys, inputs=of_gym) == [row[0] for row in examples(part="test", gym=own.gym)]
    write_table(tmp_path / "gym.jsonl", [{"input": "a", "outputs": ["x"], "text": "b", "year": 1}])
    assert inputs(own.own, capsys, inputs=tmp_path / "gym.jsonl") == ["a"]
    for name, content in (("one.csv", "words\nfine film\n"), ("input.csv", "id,input\n7,fine film\n")):
        (tmp_path / name).write_text(content)
        new = dict(task="films", like=tmp_path / name)
        assert inputs(own.own, capsys, inputs=tmp_path / name, **new) == ["fine film"]


def test_a_row_with_a_list_of_options_is_ranked(own, tmp_path, capsys):
    rows = [{"text": "x", "year": 1, "options": ["good", "bad"]}, {"text": "x", "year": 1, "options": None}]
    for ending in ("jsonl", "parquet"):
        table = write_table(tmp_path / f"new.{ending}", rows)
        ranked, typed = answered(own.own, capsys, inputs=table, options=["yes", "no"])
        assert (set(ranked["option_scores"]), set(typed["option_scores"])) == ({"good", "bad"}, {"yes", "no"})


def test_a_column_of_options_may_be_a_part_of_the_texts(own, tmp_path, capsys):
    (tmp_path / "new.csv").write_text("text,options\na,b or c\n")
    assert inputs(own.own, capsys, inputs=tmp_path / "new.csv", input="{text}: {options}") == ["a: b or c"]


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        ("film,stars\na,1\n", {}, "--input of add-task 'review: {text} of {year}': {} has no column 'text'"),
        ("text,year\na,1\n", dict(input="{txt}"), "--input '{txt}': {} has no column 'txt'; did you mean"),
        ("text,year\na,1\n", dict(input=""), "--input is empty; give a value, or leave it out"),
        ("text,year\na,1\n", dict(task=" "), "--task is empty; give a value, or leave it out"),
        (
            "text,year,options\na,1,\nb,2,a|b\n",
            {},
            "--inputs {}:3: options is 'a|b'; give a list (.jsonl,",
        ),
        ("text,year\na,1\n", dict(input="text"), "--input 'text' names no column; write {column}"),
        ("text,year\na,1\n,2\n", {}, "--inputs {}:3: column 'text' is empty"),
        ("text,year\na,1\n", dict(examples="a.csv"), "--examples a.csv: expected a train file of a gym; "),
        ("", dict(inputs="a.txt", input="{text}"), "--input '{text}' is for a table (.csv, .tsv, .jsonl, "),
    ],
)
def test_a_mistake_in_a_table_is_one_clear_line(content, flags, message, own, tmp_path, capsys):
    table = tmp_path / "new.csv"
    table.write_text(content)
    error = answered(own.own, capsys, code=2, **dict(inputs=table) | flags)
    assert error.startswith("error: " + message.replace("{}", str(table))), error
    assert error.count("error:") == 1


def test_a_text_column_named_options_is_left_out_where_options_are_given(own, tmp_path, capsys):
    (table := tmp_path / "new.csv").write_text("text,year,options\na,1,x\nb,2,a|b\n")
    given = answered(own.own, capsys, inputs=table, options=["red", "blue"])
    assert [set(line["option_scores"]) for line in given] == [{"red", "blue"}] * 2


def test_models_made_of_a_run_keep_the_templates_of_their_tasks(own, tmp_path, capsys, make_model):
    table = write_table(tmp_path / "new.csv", reviews(4))
    Routed.load(own.own).export("reviews", tmp_path / "bart", argmax=True)
    assert inputs(tmp_path / "bart", capsys, inputs=table, task=None) == REVIEWS
    flags = dict(task_dir=own.gym / "further", moe_init=True, init_dir=own.own, learning_rate_list=[0.01])
    words = grid_flags(own.gym, own.bart, tmp_path / "grid", **QUICK | flags, save_best=True, do_predict=None)
    assert finetune(words) == 0
    (best,) = (tmp_path / "grid/models").iterdir()
    assert inputs(best, capsys, inputs=table, task="further") == [f'the "plot", scene {i}' for i in range(4)]
    merged, others = make_model(), {"a": find_model(own.own), "b": find_model(own.own)}
    others["b"].config.input_templates = {"further": "{text}"}
    keep_what_is_known(merged, others)
    assert merged.config.input_templates == {"reviews": INPUT, "further": "{text}"}
    sources = own.gym / "reviews/source.json"
    sources.write_text(json.dumps({"100": "reviews.csv"}))  # as of an earlier version
    run = own.run("earlier", total_steps=1, eval_period=1)
    assert load_mixture(run / "best").config.input_templates == {}
