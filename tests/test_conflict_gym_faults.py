"""The conflict gym refuses wrong settings and folders of something else, with one error each."""

import dataclasses
import json
from pathlib import Path

import pytest
from tiny_runs import contents

from task.conflict_gym.generate import generate, main
from task.conflict_gym.settings import GymSettings, faults_of

UNUSED = Path("unused")


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"tasks": 0}, "--tasks is 0; it must be at least 1"),
        ({"unseen_tasks": -1}, "--unseen_tasks is -1; it must be 0 or greater"),
        (
            {"names": "telling_"},
            "--names is 'telling_'; choose from opaque, telling; did you mean 'telling'?",
        ),
        ({"encoder_parts": 0}, "--encoder_parts is 0; it must be at least 1"),
        ({"decoder_parts": 0}, "--decoder_parts is 0; it must be at least 1"),
        ({"conflict": 1.5}, "--conflict is 1.5; it must be from 0 to 1"),
        ({"overlap": float("nan")}, "--overlap is nan; it must be from 0 to 1"),
        ({"label_noise": -0.5}, "--label_noise is -0.5; it must be from 0 to 1"),
        ({"words": 1}, "--words is 1; it must be from 2 to 1000"),
        ({"input_words": 0}, "--input_words is 0; it must be from 1 to 32"),
        ({"rows": 0}, "--rows is 0; it must be at least 1"),
        ({"dev_rows": 0}, "--dev_rows is 0; it must be at least 1"),
        ({"test_rows": 0}, "--test_rows is 0; it must be at least 1"),
        ({"unseen_rows": 0}, "--unseen_rows is 0; it must be at least 1"),
        ({"seed": -1}, "--seed is -1; it must be 0 or greater and below 2**32"),
        (
            {"overlap": 0.5, "encoder_parts": 1, "decoder_parts": 1},
            "--overlap needs a second skill: --encoder_parts or --decoder_parts above 1",
        ),
        (
            {"overlap": 0.01},
            "--overlap is 0.01, less than one of 40 contested words; give 0, or 0.025 or more",
        ),
        (
            {"label_noise": 0.01},
            "--label_noise is 0.01, less than one of 48 train rows (--rows); give 0, or 0.021 or more",
        ),
        (
            {"tasks": 15},
            "--tasks is 15; it must be at least 16, the number of skills (--encoder_parts 4 times "
            "--decoder_parts 4)",
        ),
        (
            {"words": 30, "conflict": 0.1},
            "--words is 30: --encoder_parts 4 needs as many contested words, but --conflict 0.1 makes 3; "
            "55 are enough",
        ),
        (
            {"words": 15},
            "--words is 15: 15 contested words (--conflict 1) make 210 inputs of --input_words 2, but the "
            "files of a task need 224; 16 are enough",
        ),
        (
            {"conflict": 0.99},
            "--words is 40: 0 uncontested words (--conflict 0.99) make 0 inputs of --input_words 2, but the "
            "files of a task need 1; 150 are enough",
        ),
        (
            {"input_words": 1},
            "--words is 40: 40 contested words (--conflict 1) make 40 inputs of --input_words 1, but the "
            "files of a task need 224; 224 are enough",
        ),
        (
            {"conflict": 0.001},
            "--words is 40: --encoder_parts 4 needs as many contested words, but --conflict 0.001 makes 0; "
            "1000, the most allowed, are too few as well",
        ),
    ],
)
def test_a_wrong_setting_is_one_error_that_says_what_would_be_right(changed, fault):
    settings = dataclasses.replace(GymSettings(output_dir=UNUSED), **changed)
    assert faults_of(settings) == [fault]


def test_words_that_are_too_few_to_keep_the_skills_apart_are_an_error(tmp_path, capsys):
    """Permutations of three words that differ everywhere are the rotations, or the swaps: too few skills."""
    sizes = {"words": 3, "encoder_parts": 3, "decoder_parts": 3, "unseen_tasks": 0}
    sizes |= {"rows": 2, "dev_rows": 2, "test_rows": 2}
    flags = [f"--{name}={value}" for name, value in sizes.items()]
    assert main(["--output_dir", str(tmp_path / "gym"), *flags]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error == (
        "error: --words is 3: too few for 9 skills (--encoder_parts 3, --decoder_parts 3, --conflict 1) of "
        "which any two differ on half of the contested inputs; give more words"
    )
    assert not (tmp_path / "gym").exists()


def test_a_folder_with_something_else_is_refused_and_kept(tmp_path, capsys):
    gym = tmp_path / "gym"
    generate(GymSettings(output_dir=gym, tasks=16, unseen_tasks=1))
    saved = json.loads((gym / "gym.json").read_text())["settings"]
    finished = contents(gym)
    assert main(["--output_dir", str(gym), "--tasks", "20", "--unseen_tasks", "1"]) == 2
    error = f"error: --tasks is 20, but in {gym}/gym.json it was 16; name a new folder, or delete this one"
    assert capsys.readouterr().err.splitlines() == [error]
    assert contents(gym) == finished
    (tmp_path / "own").mkdir()
    (tmp_path / "own/thesis.txt").write_text("results")
    assert main(["--output_dir", str(tmp_path / "own")]) == 2
    error = f"error: --output_dir {tmp_path}/own is not empty and no conflict gym; name a new folder"
    assert capsys.readouterr().err.splitlines() == [error]
    assert main(["--output_dir", str(tmp_path / "own/thesis.txt")]) == 2
    assert "thesis.txt is a file; name a folder" in capsys.readouterr().err
    for damage in (
        "{}",
        '{"settings": {"seed": 0}}',
        json.dumps({"settings": saved | {"words": "40"}}),
    ):
        (gym / "gym.json").write_text(damage)
        assert main(["--output_dir", str(gym)]) == 2
        error = f"error: {gym}/gym.json does not have the settings of a conflict gym"
        assert capsys.readouterr().err.splitlines() == [error]
