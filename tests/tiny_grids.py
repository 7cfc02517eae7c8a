"""Shared by the tests of fine-tuning: a task that a tiny BART learns in six steps, a command line."""

import json
import os
import shutil
import signal
from pathlib import Path

import pandas as pd
from accelerate.state import AcceleratorState
from tiny_runs import METRICS, NO_LEARNING, World, assert_equal, typed, weights

from routing_moe.cli.finetune import main
from routing_moe.config.finetune import FinetuneSettings, finetune_settings
from routing_moe.config.flags import parse
from routing_moe.finetuning.checks import check_finetuning
from routing_moe.finetuning.trial import _runners, run_configuration

# All answers have the same first words, so that a few steps improve Rouge-L and change scores.
NAMING = ["grass\tgreen", "sky\tblue\tit is Blue", "snow\twhite", "coal\tblack", "blood\tred", "sun\ta star"]
NAMING = [line.replace("\t", "\tit is ", 1) for line in NAMING]
TASK, SAMPLES = "naming", ["naming_12_100", "naming_12_13"]  # in the order of the file names
LEARNING_RATES = [0.03, 0.1]
NO_ROUTER = dict(taskvecs_dim=None, router_hidden_dim=None, router_lr=None, task_model_lr=None)
ONE_EXPERT = NO_LEARNING | NO_ROUTER | dict(num_experts=1, init_eps=None)
# For tests in which scores do not matter.
QUICK = dict(total_steps=2, warmup_steps=0, samples="first", num_beams=1)


def write_few_shot_gym(folder: Path, gym: Path) -> Path:
    """Writes a copy of a gym with another task of two samples with 12 train, 3 dev and 3 test rows each."""
    shutil.copytree(gym, folder)
    (folder / TASK).mkdir()
    for sample, shift in zip(SAMPLES, (0, 1), strict=True):
        turned = NAMING[shift:] + NAMING[:shift]
        for part, lines in {"train": turned * 2, "dev": turned[:3], "test": turned[3:]}.items():
            (folder / TASK / f"{sample}_{part}.tsv").write_text("".join(f"{line}\n" for line in lines))
    (folder / "metrics.json").write_text(json.dumps(METRICS | {TASK: "Rouge-L"}))
    return folder


def grid_flags(gym: Path, bart: Path, output_dir: Path, **changed) -> list[str]:
    """Returns a command line for a grid of two samples and two rates; flag=value changes it."""
    chosen = dict(task_dir=gym / TASK, model=bart, output_dir=output_dir, do_train=True, do_predict=True)
    chosen |= dict(learning_rate_list=LEARNING_RATES, bsz_list=[6], total_steps=6, warmup_steps=1)
    chosen |= dict(max_input_length=24, max_output_length=8, num_beams=2, quiet=True)
    chosen |= dict(eval_period=2, max_grad_norm=1)
    return typed(chosen | changed)


def finetune(gym: Path, bart: Path, output_dir: Path, **changed) -> int:
    """Returns the exit code of `main` with `grid_flags(...)`, as in a new process."""
    AcceleratorState._reset_state(reset_partial_state=True)  # otherwise the first run's precision is kept
    code = main(grid_flags(gym, bart, output_dir, **changed))
    assert not _runners, "the model is released"
    return code


class Grids:
    """A gym with the task `naming`, the world's BART and mixtures, and the grids of one file of tests."""

    def __init__(self, world: World, name: str):
        self.world, self.folder, self.bart = world, world / "grids" / name, world.bart
        self.gym = world / "few_shot_gym"
        if not self.gym.exists():
            write_few_shot_gym(self.gym, world.gym)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def run(self, name: str, code: int = 0, **changed) -> Path:
        """Returns the folder of a grid that finished with this exit code."""
        gym, bart = changed.pop("gym", self.gym), changed.pop("bart", self.bart)
        assert finetune(gym, bart, self / name, **changed) == code
        return self / name

    def settings(self, name: str, **changed) -> FinetuneSettings:
        """Returns the checked settings of the command."""
        flags = grid_flags(self.gym, self.bart, self / name, **changed)
        given = parse(FinetuneSettings, flags)
        return check_finetuning(finetune_settings(given), given)[0]

    def mixture(self, name: str, **changed) -> Path:
        """Returns a run with different experts and untrained router and vectors; made once and shared."""
        if not (self.world / name).exists():
            self.world.run(name, **(NO_LEARNING | dict(init_eps=0.1, eval_period=100, num_beams=1) | changed))
        return self.world / name


MEASURED = ("seconds", "peak_memory_gb")


def results(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "results.csv", index_col=0)


def by_sample(folder: Path, column: str = "route") -> dict[str, str]:
    table = results(folder)
    return dict(zip(table["prefix"], table[column], strict=True))


def outcomes(folder: Path) -> dict[str, dict]:
    """Returns the results of each configuration that must be bit-identical: all but times and memory."""
    found = {path.stem: json.loads(path.read_text()) for path in (folder / "configurations").glob("*.json")}
    return {name: {k: v for k, v in one.items() if k not in MEASURED} for name, one in found.items()}


def learned(folder: Path) -> list[tuple]:
    """Returns the curve and scores of each configuration, without the description of its route."""
    return [
        (name, one["curve"], one["dev_performance"], one["test_performance"])
        for name, one in sorted(outcomes(folder).items())
    ]


def predictions(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "predictions").iterdir()}


def assert_same_grid(folder: Path, expected: Path) -> None:
    """Asserts the same outcomes, table, predictions and models, bit for bit, and no other file."""
    assert outcomes(folder) == outcomes(expected)
    assert (folder / "results.csv").read_bytes() == (expected / "results.csv").read_bytes()
    assert predictions(folder) == predictions(expected)
    models, expected_models = ([p.name for p in sorted(f.glob("models/*"))] for f in (folder, expected))
    assert models == expected_models
    for name in models:
        assert_equal(weights(folder / "models" / name), weights(expected / "models" / name))


def best_rates(folder: Path) -> dict[str, float]:
    """Returns the learning rate of the best configuration of each sample."""
    best = results(folder).set_index("prefix")["lr"]
    return {name.removesuffix("_best"): lr for name, lr in best.items() if name.endswith("_best")}


def log_of(folder: Path) -> str:
    return (folder / "log.txt").read_text()


def dies_at_the_last(settings, configuration) -> dict:
    """`run_configuration`, but the process is killed at one configuration, as if out of memory."""
    if (configuration.prefix, configuration.lr) == (SAMPLES[-1], LEARNING_RATES[-1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return run_configuration(settings, configuration)
