"""Lists of tasks."""

import pytest

from dataloader.errors import InputError
from dataloader.gym import tasks_named
from routing_moe.cli.list_tasks import main


def test_sections_and_names_select_tasks_once_and_in_order(world, tmp_path):
    split = world.gym / "split.json"
    other = tmp_path / "other.json"
    other.write_text('{"train": ["a"], "dev": ["b", "colour"]}')
    assert tasks_named(["test"], split) == ["plural"]
    assert tasks_named(["count", "test", "count", f"{other}:dev"], split) == [
        "count",
        "plural",
        "b",
        "colour",
    ]
    assert tasks_named(["all"], split) == ["colour", "count", "opposite", "plural"]
    assert tasks_named(["count", "unheard_of"], "no split is read") == ["count", "unheard_of"]


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
    assert main(["--split", split, "train", "plural"]) == 0
    assert capsys.readouterr().out == "colour\ncount\nopposite\nplural\n"
    assert main(["--split", split, "dev"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"error: {split}: the dev section is empty\n")
    with pytest.raises(SystemExit, match="2"):
        main(["--split", split, "--gmy", "gym", "test"])
    assert "unrecognized arguments: --gmy; did you mean '--gym'?" in capsys.readouterr().err
