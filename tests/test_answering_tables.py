"""Tables from add-task to answers: the template of a task is kept and applied to new tables."""

import json

import pytest
import tiny_runs
from tiny_grids import QUICK, grid_flags
from tiny_runs import World
from tiny_tables import INPUT, add_task, examples, reviews, write_table

from routing_moe import Routed
from routing_moe.checkpoints.assemble import keep_what_is_known
from routing_moe.checkpoints.find import find_model
from routing_moe.cli.answer import main as answer
from routing_moe.cli.finetune import main as finetune
from routing_moe.model.mixtures import load_mixture

pytestmark = pytest.mark.usefixtures("quick_pictures")
TEXTS = [f'review: the "plot", scene {i} of {1990 + i}' for i in range(4)]


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
    assert inputs(own.own, capsys, inputs=table) == TEXTS
    assert inputs(own.own, capsys, inputs=table, input="{year}") == ["1990", "1991", "1992", "1993"]
    assert inputs(own.own, capsys, inputs=table, input=INPUT, task="films", like=table) == TEXTS
    if ending in ("csv", "CSV", "parquet"):  # a task without a template
        error = answered(own.own, capsys, code=2, inputs=table, task="films", like=own.gym / "split.json")
        assert f'--inputs {table}: say which column is the text, such as --input "{{text}}"' in error


def test_answers_of_a_table_are_those_of_its_texts_and_record_the_template(own, tmp_path, capsys):
    table, file = write_table(tmp_path / "new.csv", reviews(4)), tmp_path / "answers.jsonl"
    (tmp_path / "new.txt").write_text("\n".join(TEXTS))
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
    assert inputs(tmp_path / "bart", capsys, inputs=table, task=None) == TEXTS
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
