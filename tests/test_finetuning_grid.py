"""Grids that are killed, extended, run in several processes or fail: finished results are kept."""

import re
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
import tiny_grids
import torch
from forks import FORK, killed, wait_until
from tiny_grids import (
    LEARNING_RATES,
    QUICK,
    SAMPLES,
    TASK,
    assert_same_grid,
    finetune,
    log_of,
    outcomes,
    results,
)
from tiny_runs import write_bart

from dataloader import executor
from dataloader.atomic_files import folder_lock
from routing_moe.finetuning import trial
from routing_moe.finetuning.trial import TrialRunner
from routing_moe.optim.step import Stepper


def finished_lines(folder: Path) -> Counter:
    """Returns how often each configuration was logged as finished."""
    return Counter(re.findall(r"prefix=(\S+), lr=(\S+), bsz=\d+: (?:dev|no dev)", log_of(folder)))


@pytest.fixture
def forked_workers(monkeypatch):
    """Workers are forks, which do not import torch again."""
    monkeypatch.setattr(executor, "SPAWNING", FORK)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_workers_end_with_a_killed_grid_which_continues(grids, finished_grid, forked_workers):
    folder = grids / "killed"
    third = f"configurations/{SAMPLES[1]}_lr{LEARNING_RATES[0]}_bsz6.json"
    flags = dict(save_best=True, num_workers=2)
    children = killed(lambda: finetune(grids.gym, grids.bart, folder, **flags), "after", third)
    assert children
    wait_until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children), 20)
    assert (folder / third).exists()
    grids.run("killed", save_best=True)
    assert_same_grid(folder, finished_grid)
    assert set(finished_lines(folder).values()) <= {1}


def test_a_grid_killed_between_renames_is_completed(grids, finished_grid):
    folder = Path(shutil.copytree(finished_grid, grids / "between"))
    best = {"prediction": f"predictions/{SAMPLES[0]}_best_test.jsonl", "model": f"models/{SAMPLES[0]}_best"}
    rate = tiny_grids.best_rates(folder)[SAMPLES[0]]
    name = f"{SAMPLES[0]}_lr{rate}_bsz6"
    (folder / best["prediction"]).rename(folder / f"predictions/{name}_test.jsonl")
    (folder / best["model"]).rename(folder / f"models/{name}")
    (folder / "results.csv").unlink()
    grids.run("between", save_best=True)
    assert_same_grid(folder, finished_grid)


def test_more_samples_and_rates_extend_a_grid(grids, finished_grid):
    grids.run("extended", save_best=True, samples="13", learning_rate_list=[0.1])
    grids.run("extended", save_best=True, samples="13")
    folder = grids.run("extended", save_best=True, samples=["13", "100"])
    assert set(finished_lines(folder).values()) == {1}
    assert_same_grid(folder, finished_grid)
    for already, total in ((0, 1), (1, 2), (2, 4)):
        assert f"{total} configurations of naming, {already} of them finished already" in log_of(folder)


def test_a_sample_that_a_later_command_does_not_name_stays_unfinished(grids, monkeypatch):
    fails_at(monkeypatch, SAMPLES[0], 0.1, RuntimeError("no"))
    folder = grids.run("left", code=1, save_best=True)
    monkeypatch.undo()
    grids.run("left", save_best=True, samples="13")
    assert f"{SAMPLES[0]}_best" not in set(results(folder)["prefix"])
    assert f"{SAMPLES[0]}_lr0.03_bsz6_test.jsonl" in tiny_grids.predictions(folder)


def fails_at(monkeypatch, prefix: str, lr: float, error: Exception) -> None:
    """Makes one configuration fail in its first step, after its gradients are computed."""
    run, collect = TrialRunner.run, Stepper._collect_gradients

    def failing(self, configuration):
        with pytest.MonkeyPatch.context() as patch:
            if (configuration.prefix, configuration.lr) == (prefix, lr):
                patch.setattr(Stepper, "_collect_gradients", breaks)
            return run(self, configuration)

    def breaks(self, *arguments):
        collect(self, *arguments)
        raise error

    monkeypatch.setattr(TrialRunner, "run", failing)


@pytest.mark.usefixtures("forked_workers")
def test_configurations_that_fail_are_tried_again(grids, finished_grid, monkeypatch, capsys):
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    fails_at(monkeypatch, SAMPLES[0], 0.03, error)
    monkeypatch.setattr(trial, "run_configuration", tiny_grids.dies_at_the_last)
    folder = grids.run("failing", code=1, save_best=True, num_workers=2)
    listed, failed, killed, advice = capsys.readouterr().err.splitlines()[-4:]
    whole = folder / "configurations" / f"{SAMPLES[0]}_lr0.03_bsz6.failed.txt"
    assert "2 configurations failed; the same command tries them again:" in listed
    assert f"  prefix={SAMPLES[0]}, lr=0.03, bsz=6: OutOfMemoryError: {error} ({whole})" in failed
    assert f"prefix={SAMPLES[1]}, lr=0.1, bsz=6: RuntimeError: its process died (exit code -9)" in killed
    assert "out of memory: give a smaller --max_tokens_per_micro_batch" in advice
    assert "Traceback" in whole.read_text()
    expected = outcomes(finished_grid)
    for name in (f"{SAMPLES[0]}_lr0.03_bsz6", f"{SAMPLES[1]}_lr0.1_bsz6"):
        del expected[name]
    assert outcomes(folder) == expected  # not affected by the others
    assert f"{SAMPLES[0]}_best" not in set(results(folder)["prefix"])
    monkeypatch.undo()
    grids.run("failing", save_best=True)
    assert_same_grid(folder, finished_grid)


@pytest.fixture(scope="module")
def shared_grid(grids, tmp_path_factory):
    """A folder with a gym, a BART and a finished quick grid of them."""
    folder = tmp_path_factory.mktemp("quick")
    gym, bart = Path(shutil.copytree(grids.gym, folder / "gym")), write_bart(folder / "bart")
    assert finetune(gym, bart, folder / "out", **QUICK) == 0
    return folder


@pytest.fixture
def quick_grid(shared_grid, tmp_path):
    """(gym, BART, a finished quick grid of them), which a test may change."""
    before = shutil.copytree(shared_grid, tmp_path / "before")
    yield shared_grid / "gym", shared_grid / "bart", shared_grid / "out"
    shutil.rmtree(shared_grid)
    shutil.move(before, shared_grid)


def refusal(quick_grid, capsys, **changed) -> str:
    """Returns the errors of the same command given again, which must fail."""
    gym, bart, out = quick_grid
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert finetune(gym, bart, out, **(QUICK | changed)) == 2
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    output = capsys.readouterr().err
    assert "Traceback" not in output
    return output


@pytest.mark.parametrize("part", ["train", "test"])
def test_other_data_is_refused(quick_grid, capsys, part):
    gym, _, out = quick_grid
    file = gym / TASK / f"{SAMPLES[0]}_{part}.tsv"
    file.write_text(file.read_text().replace("grass", "leaf").replace("coal", "tar"))
    output = refusal(quick_grid, capsys)
    assert f"{out}/configurations/{SAMPLES[0]}_lr0.03_bsz6.json is of other data than the files of" in output
    assert "restore the old files, or name another --output_dir" in output


@pytest.mark.parametrize("content", ['{"prefix": "x"}', "{"])
def test_a_damaged_file_is_reported(quick_grid, capsys, content):
    path = quick_grid[2] / f"configurations/{SAMPLES[0]}_lr0.03_bsz6.json"
    path.write_text(content)
    output = refusal(quick_grid, capsys)
    assert str(path) in output
    assert "delete it to run that configuration again" in output


def test_other_settings_are_refused_unless_they_change_no_result(quick_grid, capsys):
    changed = dict(total_steps=3, weight_decay=0.5, freeze_embeds=True, vector_steps=7)
    output = refusal(quick_grid, capsys, **changed)
    for problem in (
        "--total_steps is 3, but in the grid in {out} it was 2",
        "--weight_decay is 0.5, but in the grid in {out} it was 0.01",
        "--vector_steps is 7, but in the grid in {out} it was 100",
        "--freeze_embeds is given, but in the grid in {out} it was not given",
    ):
        assert problem.format(out=quick_grid[2]) in output
    gym, bart, out = quick_grid
    free = dict(max_tokens_per_micro_batch=100, predict_batch_size=1, quiet=None)
    assert finetune(gym, bart, out, **QUICK | free) == 0


def test_a_second_command_in_the_same_folder_is_refused(quick_grid, capsys):
    out = quick_grid[2]
    with folder_lock(out):
        output = refusal(quick_grid, capsys)
    assert f"error: --output_dir {out}: another command is using it; wait until it ends, or end it" in output
