"""The commands that answer new texts and export a BART, and the files that they read and write."""

import json
import os

import pandas as pd
import pytest
import tiny_runs
from mistakes import UNUSUAL_JSON
from test_durability import TAKEN
from tiny_answers import PLURALS, ROUTE, TEXTS, load
from tiny_runs import ROWS, contents

from dataloader.atomic_files import folder_lock
from routing_moe import Routed
from routing_moe.answering import answers_file
from routing_moe.answering import routed as routed_module
from routing_moe.cli.answer import main as answer
from routing_moe.cli.export import main as export
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
        first, _ = answered(tmp_path)
        shown = (expected.name, expected.description, expected.seen, expected.experts)
        assert (first["task"], first["route"], first["seen"], first["experts"]) == shown
        forget(tmp_path)


def typed(tmp_path, place, lines=TEXTS, name="new.txt", **changed) -> list[str]:
    (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    chosen = dict(checkpoint=place, inputs=tmp_path / name, output_file=tmp_path / "answers.jsonl") | changed
    return tiny_runs.typed(chosen)


def answered(tmp_path) -> tuple[dict, list[dict]]:
    """The meta file, and the lines."""
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    return json.loads((tmp_path / "answers.meta.json").read_text()), rows


def forget(tmp_path) -> None:
    for name in ("answers.jsonl", "answers.meta.json"):
        (tmp_path / name).unlink()


def test_the_command_writes_a_table_of_the_texts_and_beside_it_the_route(finished, tmp_path, capfd):
    long = " ".join(["word"] * 40)
    assert answer(typed(tmp_path, finished, [*TEXTS, long], task="colour")) == 0
    first, rows = answered(tmp_path)
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
    ranked, generated = answered(tmp_path)[1]
    assert set(ranked["option_scores"]) == {"green", "red"}
    assert generated["option_scores"] is None
    forget(tmp_path)
    assert answer(typed(tmp_path, finished, ROWS["colour"], "new.tsv", like=tmp_path / "new.tsv")) == 0
    first, rows = answered(tmp_path)
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
    assert [row["input"] for row in answered(tmp_path)[1]] == TEXTS


def test_the_export_command_takes_the_largest_weights_only_if_it_is_asked_to(soft_run, tmp_path, capfd):
    words = tiny_runs.typed(dict(checkpoint=soft_run, task="count", output_dir=tmp_path / "bart"))
    assert export(words) == 2
    assert "error: count: the route mixes" in capfd.readouterr().err
    of_all = tiny_runs.typed(dict(checkpoint=soft_run, adapters=True, argmax=True, output_dir=tmp_path / "x"))
    assert export(of_all) == 2
    assert "--argmax is for a plain model" in capfd.readouterr().err
    assert export([*words, "--argmax"]) == 0
    assert "of the expert of largest weight in each layer" in (tmp_path / "bart/README.md").read_text()
