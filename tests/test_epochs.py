"""The limit of --num_train_epochs: none by default, and never within the warm-up."""

from dataclasses import replace

import pandas as pd
import pytest
from mistakes import assert_problem
from tiny_runs import run

from routing_moe.config.shared import last_step
from routing_moe.config.train import TrainSettings

pytestmark = pytest.mark.usefixtures("quick_pictures")


def test_a_run_ends_after_its_epochs_if_that_is_sooner(world):
    folder = world.run("epochs", num_train_epochs=0.2)  # 14.4 of 72 examples: two steps of 8
    assert pd.read_csv(folder / "losses.csv")["steps"].tolist() == [2]


def test_a_small_gym_is_trained_for_the_steps_that_were_asked_for():
    settings = TrainSettings(output_dir="run")
    most = replace(settings, total_steps=30_000)  # 10,000 passes
    assert last_step(most, 96, most.step_size) == 30_000


def test_epochs_do_not_end_a_run_in_its_warm_up(world, capsys):
    changed = dict(num_train_epochs=0.1, warmup_ratio=0.5)  # 7.2 of 72 examples: one step of 8
    assert run(world.gym, world.bart, world / "in_warm_up", **changed) == 2
    assert_problem(
        capsys.readouterr().err.splitlines(),
        "--num_train_epochs 0.1 ends the run of 72 examples at step 1",
        "the learning rate rises until step 3 of --total_steps 6",
        "leave the flag out, or give --total_steps 1",
    )
    assert not (world / "in_warm_up/run.json").exists()
