"""The conflict gym refuses wrong settings and folders of something else, with one error each."""

import dataclasses
from pathlib import Path

import pytest
from tiny_runs import contents

from task.conflict_gym.generate import main
from task.conflict_gym.settings import GymSettings, problems_of

UNUSED = Path("unused")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"unseen_tasks": -1}, "--unseen_tasks is -1"),
        ({"names": "telling_"}, "choose from opaque, telling; did you mean 'telling'?"),
        ({"overlap": float("nan")}, "--overlap is nan"),
        ({"overlap": 0.5, "encoder_parts": 1, "decoder_parts": 1}, "--overlap needs a second skill"),
        ({"tasks": 15}, "--tasks is 15; it must be at least 16"),
        ({"words": 40, "conflict": 0.08}, "3 contested words are fewer than the 4 parts of one side"),
        ({"words": 15}, "15 contested words make 210 inputs, but a task needs 224"),
        ({"conflict": 0.95, "words": 20}, "1 uncontested words make 0 inputs, but a task needs 13"),
    ],
)
def test_a_wrong_setting_is_one_error_that_says_what_would_be_right(changed, problem):
    settings = dataclasses.replace(GymSettings(output_dir=UNUSED), **changed)
    (found,) = problems_of(settings)
    assert problem in found


def test_words_that_are_too_few_to_keep_the_skills_apart_are_an_error(tmp_path, capsys):
    """Permutations of three words that differ everywhere are the rotations, or the swaps: too few skills."""
    sizes = {"words": 3, "encoder_parts": 3, "decoder_parts": 3, "unseen_tasks": 0}
    sizes |= {"rows": 2, "dev_rows": 2, "test_rows": 2}
    flags = [f"--{name}={value}" for name, value in sizes.items()]
    assert main(["--output_dir", str(tmp_path / "gym"), *flags]) == 2
    assert "--words is 3: too few for 9 skills" in capsys.readouterr().err
    assert not (tmp_path / "gym").exists()


def test_a_folder_with_something_else_is_refused_and_kept(tmp_path, capsys):
    gym, other = tmp_path / "gym", tmp_path / "other"
    flags = ["--tasks", "16", "--unseen_tasks", "1"]
    assert main(["--output_dir", str(gym), *flags]) == 0
    finished = contents(gym)
    assert main(["--output_dir", str(gym), *flags]) == 0
    assert "already written with these settings" in capsys.readouterr().out
    other.mkdir()
    file = other / "thesis.txt"
    file.write_text("results")
    for folder, error in (
        (gym, f"--tasks is 64, but in {gym}/gym.json it was 16; name a new folder, or delete this one"),
        (other, f"--output_dir {other} is not empty and has no gym.json; name a new folder"),
        (file, f"--output_dir {file}: {file} is a file; name a folder"),
    ):
        assert main(["--output_dir", str(folder), "--unseen_tasks", "1"]) == 2
        assert capsys.readouterr().err.splitlines() == [f"error: {error}"]
    assert contents(gym) == finished
    for damage in ("{}", '{"settings": {"seed": 0}}'):
        (gym / "gym.json").write_text(damage)
        assert main(["--output_dir", str(gym)]) == 2
        error = f"error: {gym}/gym.json does not have the settings of routing-moe conflict-gym"
        assert capsys.readouterr().err.splitlines() == [f"{error}; name another folder"]
