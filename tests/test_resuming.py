"""Runs that stop in different ways and resume without any difference in results."""

import os
import signal
from pathlib import Path

import pytest
import torch
from forks import forked, killed
from tiny_runs import assert_equal, assert_same_run, contents, fail_in_step, reopen, run, weights

from routing_moe.model.mixtures import load_mixture
from routing_moe.optim.step import Stepper

pytestmark = pytest.mark.usefixtures("quick_pictures")


@pytest.fixture
def stopped(world, tmp_path):
    """A copy of a run that failed in its fifth step, with last/ of step 3."""
    if not (world / "stopped").exists():
        fail_in_step(5, lambda: world.run("stopped", do_predict=True, save_period=2))
    return world.copy(world / "stopped", tmp_path.name)


def resume(world, folder: Path) -> Path:
    return world.run(folder.name, do_predict=True, save_period=2, resume=True)


def test_a_stopped_run_resumes_bit_for_bit_and_drops_rows_of_later_steps(world, stopped, finished):
    assert not (stopped / "6-steps").exists()
    header = (finished / "curves.csv").read_text().splitlines()[0]
    (stopped / "curves.csv").write_text(f"{header}\n4,1,1,1,1,1\n1")  # "1" is an incomplete "10,..."
    assert_same_run(resume(world, stopped), finished)
    assert "resuming after step 3" in (stopped / "log.txt").read_text()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_run_killed_around_renames_resumes_bit_for_bit(world, finished):
    folder = world / "killed"

    def command() -> int:
        return run(world.gym, world.bart, folder, do_predict=True, save_period=2, resume=True)

    killed(command, "after", "best")
    killed(command, "before", "last", number=2)  # while there is none
    killed(command, "after", "best/eval-dev-performance.csv")
    assert command() == 0
    (folder / "eval_log.txt").unlink()  # of the command that only scored
    assert_same_run(folder, finished)


def test_resuming_a_finished_run_says_so_and_changes_nothing(world, finished, capsys):
    folder = world.copy(finished, "complete")
    before = contents(folder)
    resume(world, folder)
    scores = folder / "best/eval-test-performance.csv"
    assert capsys.readouterr().out == f"{folder} is finished: scores in {scores}\n"
    world.run(folder.name, do_train=None, save_period=2, resume=True)  # without either flag, both happen
    world.run(folder.name, save_period=2, resume=True)
    assert capsys.readouterr().out.endswith(f"{folder} is finished: best checkpoint in {folder / 'best'}\n")
    assert contents(folder) == before


@pytest.mark.parametrize("killed_between", [False, True])
def test_a_trained_run_with_scores_of_fewer_examples_is_only_scored(killed_between, world, finished):
    folder, flags = world.copy(finished, f"unscored{killed_between}"), dict(do_predict=True, save_period=2)
    log = (folder / "log.txt").read_text()
    (folder / "best/eval-settings.json").unlink()  # else its scores are not replaced
    only = dict(do_train=None, initialize_from_vanilla=None, predict_max_examples=1)
    if killed_between:  # the scores of dev files and of test files
        files = (world.gym, world.bart, folder)
        killed(lambda: run(*files, **flags | only), "after", "best/eval-dev-performance.csv")
    else:
        world.run(folder.name, **flags | only)
    world.run(folder.name, **flags, resume=True)
    (folder / "eval_log.txt").unlink()
    assert_same_run(folder, finished)
    assert (folder / "log.txt").read_text() == log


def test_a_run_that_was_out_of_memory_goes_on_with_its_smaller_micro_batches(world, finished, monkeypatch):
    def out_of_memory_once():
        backward, errors = Stepper._backward, [torch.OutOfMemoryError("CUDA out of memory")]

        def limited(self, *args):
            if errors:
                raise errors.pop()
            return backward(self, *args)

        monkeypatch.setattr(Stepper, "_backward", limited)

    flags = dict(total_steps=3, checkpoint_period=2, no_text_vectors=True)
    out_of_memory_once()
    whole = world.run("halved", **flags)
    out_of_memory_once()
    fail_in_step(3, lambda: world.run("halved and stopped", **flags))
    resumed = world.run("halved and stopped", **flags, resume=True)
    assert_same_run(resumed, whole)  # with dropout, whose masks differ otherwise
    state = torch.load(whole / "last/training_state.pt", weights_only=True)
    assert state["max_tokens"][0] == 16384 > 10 * state["max_tokens"][1]
    reopen(resumed)
    world.run(resumed.name, **flags, resume=True, max_tokens_per_micro_batch=99)
    assert "micro-batches of at most 99 padded tokens" in (resumed / "log.txt").read_text()


def test_a_finished_run_without_its_cost_gets_it(world, finished):
    folder = world.copy(finished, "without cost")
    reopen(folder)
    resume(world, folder)
    assert "the run was complete already, after step 6" in (folder / "log.txt").read_text()
    assert_same_run(folder, finished)


def test_ctrl_c_finishes_the_step_saves_and_reports_how_to_resume(world, finished, capfd):
    step = Stepper.step

    def interrupted(self, number):
        if number == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, number)

    folder, flags = world / "interrupted", dict(do_predict=True, save_period=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "step", interrupted)
        assert forked(lambda: run(world.gym, world.bart, folder, **flags)) == 1
    output = capfd.readouterr().err
    assert "stopping after this step and its evaluation, if due; interrupt again to stop at once" in output
    assert output.strip().endswith("stopped after step 2; --resume continues from there")
    assert "Traceback" not in output
    assert_equal(weights(folder / "last"), weights(finished / "2-steps"))


def test_a_diverged_run_reports_its_last_checkpoint(world, capsys):
    changed = dict(learning_rate=1e38, max_grad_norm="inf", warmup_ratio=0, checkpoint_period=1)
    assert run(world.gym, world.bart, world / "diverged", **changed) == 1
    error = capsys.readouterr().err
    assert "at step 2; tasks in the batch: colour, count, opposite" in error
    assert f"last good checkpoint: {world / 'diverged/last'}" in error
    assert "Traceback" not in error


def test_a_loaded_checkpoint_is_aligned_in_memory(finished):
    # Products of unaligned matrices may round differently; safetensors files are aligned to 8 bytes at most.
    model = load_mixture(finished / "last")
    assert {tensor.data_ptr() % 64 for tensor in (*model.parameters(), *model.buffers())} == {0}
    assert model.lm_head.weight is model.model.shared.weight
