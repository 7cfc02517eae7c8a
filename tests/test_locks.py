"""Two commands on one run folder: the second is refused and changes no file."""

import time

import pytest
from forks import FORK, in_two_processes
from mistakes import assert_fault, complaint, refused
from tiny_runs import contents, flags, run, typed

from dataloader.atomic_files import folder_lock
from dataloader.errors import InputError
from routing_moe.cli.merge import main as merge
from routing_moe.cli.report import main as report
from routing_moe.cli.train import main as train
from routing_moe.io.main_process import main_process_lock

TAKEN = "another command is using it; wait until it ends, or end it"


@pytest.fixture
def taken(with_run):
    """A run folder that another command has locked."""
    with folder_lock(with_run.out):
        yield with_run


RESUMED = dict(resume=True, total_steps=1)
PREDICTS = dict(do_train=None, do_predict=True, initialize_from_vanilla=None)


@pytest.mark.parametrize(
    "changed",
    [RESUMED, PREDICTS, PREDICTS | dict(equal_flops="<out>")],
    ids=["--resume", "--do_predict", "--do_predict --equal_flops"],
)
def test_training_and_prediction_are_refused_during_another_command(taken, capsys, monkeypatch, changed):
    monkeypatch.setattr("routing_moe.training.run.load_start", None)  # nothing is loaded before
    errors = complaint(taken, capsys, **changed)
    assert errors[-1] == f"error: --output_dir {taken.out}: {TAKEN}"


def test_a_merge_is_refused_during_another_command(taken, capsys):
    chosen = dict(routes_from=taken.out, model=taken.bart, output_dir=taken.out)
    for more in ([], ["--keep_existing"]):
        output = refused(taken, capsys, lambda more=more: merge([*typed(chosen), *more]))
        assert output.err == f"error: --output_dir {taken.out}: {TAKEN}\n"


@pytest.mark.parametrize("place", ["out", "out/best"])
def test_a_report_is_refused_during_another_command(taken, capsys, place):
    output = refused(taken, capsys, lambda: report([str(taken.folder / place)]))
    assert output.err == f"error: RUN {taken.out}: {TAKEN}\n"
    elsewhere = ["--output_file", str(taken.folder / "page.html")]
    refused(taken, capsys, lambda: report([str(taken.folder / place), *elsewhere]))


def test_mistakes_in_flags_are_reported_before_the_folder_is_checked(taken, capsys):
    errors = complaint(taken, capsys, **RESUMED | dict(total_steps=0))
    assert_fault(errors, "--total_steps is 0")
    assert TAKEN not in "".join(errors)


def test_a_run_started_by_another_command_after_the_check_is_not_overwritten(fresh, capsys, monkeypatch):
    def other(*arguments):  # starts and ends between this command's check and its lock
        fresh.write(fresh.out / "run.json", {"settings": {}})
        return main_process_lock(*arguments)

    monkeypatch.setattr("routing_moe.io.main_process.main_process_lock", other)
    assert run(fresh.gym, fresh.bart, fresh.out) == 2
    assert f"--output_dir {fresh.out} already holds a run" in capsys.readouterr().err
    assert contents(fresh.out).keys() == {"run.json"}


def test_a_checkpoint_merged_after_the_check_is_not_replaced(with_run, capsys, monkeypatch):
    def other(folder):
        with_run.write(folder / "init/config.json", {})
        return folder_lock(folder)

    monkeypatch.setattr("routing_moe.cli.merge.folder_lock", lambda folder: other(with_run.folder / "new"))
    chosen = dict(routes_from=with_run.out, model=with_run.bart, output_dir=with_run.folder / "new")
    assert merge(typed(chosen)) == 2
    assert f"{with_run.folder}/new/init exists already" in capsys.readouterr().err


# ---- the lock


def test_a_folder_is_locked_for_others_until_the_command_ends_or_fails(tmp_path):
    def interrupted():
        with folder_lock(tmp_path / "a"):
            with pytest.raises(InputError, match=TAKEN), folder_lock(tmp_path / "a"):
                pass
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with folder_lock(tmp_path / "a"), folder_lock(tmp_path / "b"):
        pass


def test_a_killed_command_releases_its_lock(tmp_path):
    def hold(holds) -> None:
        with folder_lock(tmp_path):
            holds.set()
            time.sleep(60)

    holds = FORK.Event()
    holder = FORK.Process(target=hold, args=(holds,))
    holder.start()
    assert holds.wait(30)
    with pytest.raises(InputError, match=TAKEN), folder_lock(tmp_path):
        pass
    holder.kill()
    holder.join()
    assert (tmp_path / "lock").exists()
    with folder_lock(tmp_path):
        pass


# ---- several processes


def test_all_processes_of_a_refused_command_end_with_one_error(fresh):
    words = flags(fresh.gym, fresh.bart, fresh.out)
    with folder_lock(fresh.out):
        codes, stderr = in_two_processes(fresh.folder, lambda: train(words))
    assert codes == [2, 2]
    assert stderr == [f"error: --output_dir {fresh.out}: {TAKEN}\n", ""]
    assert contents(fresh.out) == {}
