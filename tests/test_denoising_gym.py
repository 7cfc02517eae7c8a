"""The denoising gym: masked train inputs of another gym, for which the training command is a warm-up."""

import csv
import re
from pathlib import Path

import pytest
from tiny_runs import contents, run, write_gym

from dataloader.gym import Gym
from dataloader.task_splits import load_split
from task.english_bart.denoise import TASK, cut, main

SENTENCES = [f"the {a} {b} is {c} than the small {b}" for a in ("big", "old", "red") for b in ("cat", "dog")
             for c in ("taller", "older", "faster", "nicer")]  # fmt: skip


@pytest.fixture(scope="module")
def gym(tmp_path_factory) -> Path:
    """A gym whose train task `colour` has sentences as inputs, and a long one, in its train files."""
    folder = write_gym(tmp_path_factory.mktemp("gym") / "gym")
    inputs = [*SENTENCES, " ".join(f"word{n}" for n in range(50)), "too short"]
    for path in (folder / "colour").glob("*_train.tsv"):
        path.write_text("".join(f"{text}\tanswer\n" for text in inputs))
    return folder


def made(gym: Path, folder: Path, *flags: str) -> Path:
    assert main(["--gym", str(gym), "--dev_rows", "5", "--output_dir", str(folder), *flags]) == 0
    return folder


@pytest.fixture(scope="module")
def denoising(gym, tmp_path_factory) -> Path:
    return made(gym, tmp_path_factory.mktemp("denoising") / "gym")


def test_texts_are_those_of_the_train_files_of_train_tasks(denoising):
    targets = {part: [e.outputs[0] for e in Gym(denoising).examples(TASK, part)] for part in ("train", "dev")}
    long = " ".join(f"word{n}" for n in range(40)), " ".join(f"word{n}" for n in range(40, 50))
    assert set(targets["train"]) | set(targets["dev"]) == {*SENTENCES, *long}  # others have under 4 words
    assert not set(targets["train"]) & set(targets["dev"])
    assert len(targets["dev"]) == len(set(targets["dev"])) == 5
    assert len(targets["train"]) == 4 * len(set(targets["train"]))
    assert "answer" not in targets["train"]


def test_masks_stand_for_spans_and_the_other_words_stay(denoising):
    hidden = words = spans = 0
    noises: dict[str, set[str]] = {}
    for example in Gym(denoising).examples(TASK, "train"):
        pattern = re.escape(example.input).replace(r"\[MASK\]", r"\S+(?: \S+)*")
        assert re.fullmatch(pattern, example.outputs[0])
        masks, kept = example.input.split().count("[MASK]"), len(example.input.split())
        assert masks >= 1
        assert "[MASK] [MASK]" not in example.input
        spans, words = spans + masks, words + len(example.outputs[0].split())
        hidden += len(example.outputs[0].split()) - (kept - masks)
        noises.setdefault(example.outputs[0], set()).add(example.input)
    assert 0.25 < hidden / words < 0.35
    assert 1.5 < hidden / spans < 3.5  # short texts cut spans off
    assert sum(map(len, noises.values())) > 3 * len(noises)


def test_long_inputs_are_cut_and_short_rests_left_out():
    words = [str(n) for n in range(11)]
    assert cut(words, 4) == ["0 1 2 3", "4 5 6 7"]
    assert cut(words, 7) == ["0 1 2 3 4 5 6", "7 8 9 10"]
    assert cut(words[:3], 7) == []


def test_a_task_has_at_most_the_given_number_of_texts(gym, tmp_path):
    folder = made(gym, tmp_path / "few", "--texts_per_task", "10", "--noises", "1")
    assert len(Gym(folder).examples(TASK, "train")) == 5


def test_the_same_settings_write_the_same_bytes_and_others_are_refused(gym, denoising, tmp_path, capsys):
    folder = made(gym, tmp_path / "again")
    assert contents(folder) == contents(denoising)
    assert main(["--gym", str(gym), "--output_dir", str(folder), "--dev_rows", "5", "--span", "2"]) == 2
    assert "--span is 2.0, but in" in capsys.readouterr().err
    assert contents(made(gym, tmp_path / "other", "--seed", "1")).keys() != contents(denoising).keys()


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--mask", "1"], "--mask is 1.0; it must be between 0 and 1"),
        (["--span", "0"], "--span is 0.0; it must be at least 1"),
        (["--gym", "{}/none"], "--gym {}/none: no such folder"),
        (["--split", "{}/none.json"], "{}/none.json: no such file"),
        (["--dev_rows", "26"], "--dev_rows is 26, but the train inputs in"),
    ],
)
def test_wrong_flags_are_errors_and_nothing_is_written(gym, tmp_path, capsys, flags, problem):
    words = [word.format(tmp_path) for word in flags]
    assert main(["--gym", str(gym), "--output_dir", str(tmp_path / "out"), *words]) == 2
    assert f"error: {problem.format(tmp_path)}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_training_command_warms_a_bart_up_on_it_and_resumes(denoising, world, tmp_path):
    one = dict(taskvecs_dim=None, router_hidden_dim=None, init_eps=None, router_lr=None, task_model_lr=None)
    one |= dict(num_experts=1, resume=True, max_output_length=24)
    assert run(denoising, world.bart, tmp_path / "run", total_steps=4, eval_period=2, **one) == 0
    with open(tmp_path / "run/losses.csv", newline="") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 2
    assert run(denoising, world.bart, tmp_path / "run", total_steps=4, eval_period=2, **one) == 0
    assert load_split(denoising / "split.json").train == (TASK,)
