"""The scripts of example_scripts/ when a command of theirs fails, or a file is missing."""

import pytest
from test_example_scripts import GYM, call
from tiny_runs import ROOT

FAKE = """#!/usr/bin/env bash
echo "$*" >>calls
case "$*" in
*list-tasks*) echo t1 t2 ;;
*singletask-t1* | *collect-results*) exit 1 ;;
esac
"""


@pytest.fixture
def faked(tmp_path):
    """faked(line): exit code, errors and commands of a script in a folder of its own; none of them runs."""
    (tmp_path / "example_scripts").symlink_to(ROOT / "example_scripts")
    (tmp_path / "python").write_text(FAKE)
    (tmp_path / "python").chmod(0o755)

    def run(line: str) -> tuple[int, str, list[str]]:
        done = call(tmp_path, f"bash example_scripts/{line}", check=False)
        return done.returncode, done.stderr, (tmp_path / "calls").read_text().splitlines()

    return run


def test_a_failed_task_is_named_also_if_its_results_are_missing(faked):
    code, errors, _ = faked(f"finetune_a_list_of_tasks.sh test None mine {GYM}")
    assert (code, errors) == (2, "error: fine-tuning failed on t1\n")


def test_small_makes_a_gym_that_is_missing_also_if_the_bart_is_there(faked, tmp_path):
    (tmp_path / "data/small_bart").mkdir(parents=True)
    (tmp_path / "data/small_bart/config.json").touch()
    code, _, calls = faked("train_lora.sh --small")
    assert code == 0
    assert "conflict-gym --conflict 0.5 --output_dir data/small_gym" in calls[0]
