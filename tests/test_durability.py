"""Files survive a power failure, and a folder in which a command works is refused to a second one."""

import os
import time
from pathlib import Path

import pytest
from forks import FORK
from mistakes import complaint
from tiny_runs import contents, reopen, run

from dataloader.atomic_files import folder_lock, write_text
from dataloader.errors import InputError
from routing_moe.io.files import replacing_directory
from routing_moe.io.main_process import main_process_lock


@pytest.fixture
def calls(monkeypatch):
    """The flushes, renames and removals, in order."""
    noted, opened = [], {}
    real = {name: getattr(os, name) for name in ("open", "fsync", "replace", "rename")}

    def noting_open(path, *how, **more):
        descriptor = real["open"](path, *how, **more)
        opened[descriptor] = Path(path)
        return descriptor

    def noting_fsync(descriptor):
        noted.append(("fsync", opened[descriptor]))
        real["fsync"](descriptor)

    def noting_rename(old, new):
        noted.append(("rename", Path(old), Path(new)))
        real["replace"](old, new)

    monkeypatch.setattr(os, "open", noting_open)
    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_rename)
    monkeypatch.setattr(os, "rename", noting_rename)
    monkeypatch.setattr("shutil.rmtree", lambda path, **how: noted.append(("remove", Path(path))))
    return noted


def test_a_file_is_flushed_before_its_rename_and_its_folder_after(tmp_path, calls):
    write_text(tmp_path / "run.json", "{}")
    (_, partial), *then = calls
    assert then == [("rename", partial, tmp_path / "run.json"), ("fsync", tmp_path)]


def test_a_checkpoint_is_flushed_before_the_previous_one_is_removed(tmp_path, calls):
    place = tmp_path / "best"
    place.mkdir()
    with replacing_directory(place) as partial:
        (partial / "part").mkdir()
        for name in ("config.json", "part/a"):
            (partial / name).touch()
    previous = partial.with_name("previous")
    assert calls == [
        *(("fsync", partial / name) for name in ("part/a", "part", "config.json", "")),
        ("rename", place, previous),
        ("rename", partial, place),
        ("fsync", tmp_path),
        ("remove", previous),
    ]


def test_a_full_disk_is_reported_and_the_previous_file_remains(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    write_text(tmp_path / "a", "old")
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "a", "new")
    monkeypatch.undo()
    assert contents(tmp_path) == {"a": b"old"}


def test_what_a_killed_process_left_is_removed_and_what_a_user_has_beside_it_is_not(tmp_path):
    mine = [tmp_path / f"best{end}" for end in (".partial", ".previous", ".new", ".tmp")]
    mine.append(tmp_path / ".best.mine.partial")
    for folder in mine:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine", encoding="utf-8")
    before = contents(tmp_path)

    def write(content: str) -> None:
        with replacing_directory(tmp_path / "best") as folder:
            (folder / "config.json").write_text(content, encoding="utf-8")
            if content == "killed":
                os._exit(9)

    for content in ("old", "killed", "new"):
        process = FORK.Process(target=write, args=(content,))
        process.start()
        process.join()
        left = [path for path in tmp_path.glob(".best.*") if path not in mine]
        assert len(left) == (content == "killed")
        expected = "old" if content == "killed" else content
        assert (tmp_path / "best/config.json").read_text() == expected
    assert contents(tmp_path) == before | {"best/config.json": b"new"}


TAKEN = "another command is using it; wait until it ends, or end it"


@pytest.fixture
def taken(with_run):
    """A run folder that another command has locked."""
    reopen(with_run.out)
    with folder_lock(with_run.out):
        yield with_run


RESUMED = dict(resume=True, total_steps=1)
PREDICTS = dict(do_train=None, do_predict=True, initialize_from_vanilla=None)


@pytest.mark.parametrize("changed", [RESUMED, PREDICTS], ids=["--resume", "--do_predict"])
def test_training_and_prediction_are_refused_during_another_command(taken, capsys, monkeypatch, changed):
    monkeypatch.setattr("routing_moe.training.run.load_start", None)  # nothing is loaded before
    errors = complaint(taken, capsys, **changed)
    assert errors[-1] == f"error: --output_dir {taken.out}: {TAKEN}"


def test_a_run_started_by_another_command_after_the_check_is_not_overwritten(fresh, capsys, monkeypatch):
    def other(*arguments):  # starts and ends between this command's check and its lock
        fresh.write(fresh.out / "run.json", {"settings": {}})
        return main_process_lock(*arguments)

    monkeypatch.setattr("routing_moe.io.main_process.main_process_lock", other)
    assert run(fresh.gym, fresh.bart, fresh.out) == 2
    assert f"--output_dir {fresh.out} already holds a run" in capsys.readouterr().err
    assert contents(fresh.out).keys() == {"run.json"}


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
