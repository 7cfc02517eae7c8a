"""Scripts of one experiment: which model, data and hyperparameters they have, and their commands."""

import json
import subprocess
from pathlib import Path

import pytest
from recorded_commands import write

from routing_moe.studies import (
    devices,
    recipes,
    refined_routing,
    runs,
    training,
)
from routing_moe.studies.recipes import BART_BASE, DataFlags, TrainingFlags, TrainingRecipe, tiny_bart

SPLIT = json.dumps({"train": ["a", "b"], "dev": [], "test": ["c", "d"]})


@pytest.fixture
def gym(tmp_path):
    """A gym of four tasks."""
    write(tmp_path / "gym/split.json", SPLIT)
    for task in "abcd":
        write(tmp_path / f"gym/{task}/{task}_16_13_train.tsv", "in\tout\n")
    return "gym"


# ---- model and hyperparameters


@pytest.mark.parametrize(
    ("flags", "model", "rate"),
    [
        ({}, "tiny", 1e-3),
        (dict(train_dir="gym"), BART_BASE, 1e-5),
        (dict(custom_tasks_splits="split.json"), BART_BASE, 1e-5),
        (dict(taskvecs="vectors"), BART_BASE, 1e-5),
        (dict(train_dir="gym", model="my/bart"), "my/bart", 1e-5),
        (dict(train_dir="gym", model="tiny"), "tiny", 1e-3),
        (dict(embedded_gym="conflict"), "data/conflict_gym_bart/width16", 3e-3),
        (dict(embedded_gym="conflict", model="my/bart"), "my/bart", 3e-3),
        (dict(train_dir="gym", learning_rate=0.5), BART_BASE, 0.5),
    ],
)
def test_data_of_ones_own_select_bart_base_and_hyperparameters_go_with_the_model(
    recorder, flags, model, rate
):
    tiny = {"tiny": str(tiny_bart())}
    flags = {name: tiny.get(value, value) for name, value in flags.items()}
    recipe = TrainingRecipe.chosen(TrainingFlags(**flags))
    assert (recipe.model, recipe.rate()) == (tiny.get(model, model), rate)


def test_the_model_of_a_checkpoint_is_the_recorded_one_else_it_follows_from_the_sizes(recorder, tmp_path):
    plain = {"initialize_from_vanilla": True, "model": "plain/bart"}
    write("first/run.json", json.dumps(plain))
    write("second/run.json", json.dumps({"model": "not/its/start"}))
    write("second/init/merge.json", json.dumps({"model": "merged/bart"}))
    write("published/best/config.json", json.dumps({"d_model": 1024, "vocab_size": 50265}))
    write("published/best/pytorch_model.bin")
    write("tiny/config.json", (tiny_bart() / "config.json").read_text())
    expected = {
        "first": "plain/bart",
        "first/best": "plain/bart",
        "second": "merged/bart",
        "published": recipes.BART_LARGE,
        "published/best/pytorch_model.bin": recipes.BART_LARGE,
        "tiny": str(tiny_bart()),
        "missing": BART_BASE,
    }
    for checkpoint, model in expected.items():
        assert TrainingRecipe.chosen(DataFlags(), checkpoint).model == model, checkpoint
        assert TrainingRecipe.chosen(DataFlags(model="given"), checkpoint).model == "given"


def test_a_training_says_first_what_it_does_and_flags_win_over_variables(recorder, gym, capsys, monkeypatch):
    for name, value in dict(DATA_DIR=gym, TOTAL_STEPS="9", LEARNING_RATE="1e-2", OUTPUT_DIR="mine").items():
        monkeypatch.setenv(name, value)
    assert training.main(["--total_steps", "7", "--seed", "3", "--taskvecs", "vectors"]) == 0
    output = capsys.readouterr().out
    start = f"model {BART_BASE}, task vectors vectors; gym gym, split gym/split.json\n7 steps"
    assert output.startswith(start)
    rates = "learning rate 0.01, router 0.001, task vectors 0.01"
    assert f"{rates}; on CPU; output in mine; flags: --seed 3" in output
    expected = dict(total_steps=7, learning_rate=0.01, seed=3, output_dir="mine")
    expected |= dict(train_dir=gym, taskvecs="vectors")
    assert expected.items() <= recorder.settings().items()


@pytest.mark.parametrize(
    ("flags", "learned"),
    [
        ([], True),
        (["--avg_routing"], False),
        (["--random_routing"], False),
        (["--num_experts=1"], False),
        (["--task_routes", "ontology"], False),
        (["--task_routes", "ontology", "--task_routes_as", "start"], True),
    ],
)
def test_only_learned_routes_have_the_hyperparameters_of_routers(recorder, gym, flags, learned):
    assert training.main(["--train_dir", gym, *flags]) == 0
    assert ("router_lr" in recorder.settings()) == learned


def test_a_command_of_a_study_reads_no_variables(recorder, gym, monkeypatch):
    for name, value in {"LEARNING_RATE": "0.5", runs.NESTED: "yes"}.items():
        monkeypatch.setenv(name, value)
    assert training.main(["--train_dir", gym]) == 0
    assert recorder.settings()["learning_rate"] == 1e-5


def test_a_switch_is_yes_or_no(recorder, gym, monkeypatch, capsys):
    monkeypatch.setenv("FROM_MODEL", "false")
    with pytest.raises(SystemExit):
        refined_routing.main(["--train_dir", gym])
    assert "FROM_MODEL is 'false'; it must be yes or no" in capsys.readouterr().err


def test_an_unknown_flag_is_an_error_before_anything_runs(recorder, capsys):
    with pytest.raises(SystemExit):
        training.main(["--learning_rates", "3"])
    assert "--learning_rate" in capsys.readouterr().err
    assert recorder.commands == []


def test_the_embedded_gym_is_written_once_per_version_of_its_generator(recorder):
    assert training.main([]) == 0
    assert recorder.names() == ["generate", "train"]
    assert training.main([]) == 0
    assert recorder.names() == ["generate", "train", "train"]
    (stamp,) = recipes.GYMS["skill"].glob("generator-*")
    stamp.rename(stamp.with_name("generator-0"))
    (recipes.GYMS["skill"] / "my_task").mkdir()
    assert training.main([]) == 0
    assert recorder.names()[-2:] == ["generate", "train"]
    (kept,) = recipes.GYMS["skill"].parent.glob("skill_gym-old-*")
    assert (kept / "my_task").is_dir()


@pytest.mark.parametrize(
    ("listed", "expected"), [("", "CPU"), ("GPU 0: A (UUID: x)\nGPU 1: A (UUID: y)\n", "2 GPUs (A)")]
)
def test_the_device_is_that_of_nvidia_smi(monkeypatch, request, listed, expected):
    done = subprocess.CompletedProcess([], 0, stdout=listed)
    monkeypatch.setattr(devices.subprocess, "run", lambda *_, **__: done)
    devices.installed_gpus.cache_clear()
    request.addfinalizer(devices.installed_gpus.cache_clear)
    for name in ("CUDA_VISIBLE_DEVICES", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    assert devices.device() == expected
    assert devices.precision(None) == ("auto" if listed else None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert devices.device() == ("1 GPU (A)" if listed else "CPU")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "yes")
    assert devices.device() == "CPU"


def test_a_command_has_flags_by_name_and_further_words_that_win():
    line = recipes.command(
        *("module", Path("first")),
        **dict(
            rate=1e-05, exact=0.00012345678, sizes=(2, 4), none=None, off=False, on=True, flags="--seed 3"
        ),
        further=["--rate", 2],
    )
    expected = ["module", "first", "--rate", "1e-5", "--exact", "0.00012345678", "--sizes", "2", "4"]
    assert line == [*expected, "--on", "--flags=--seed 3", "--rate", "2"]
