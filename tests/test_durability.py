"""Files survive a power failure, and a folder in which a command works is refused to a second one."""

import os
import time
from pathlib import Path

import pytest
from forks import FORK, in_two_processes
from mistakes import complaint, refused
from tiny_runs import contents, flags, reopen, run, typed

from dataloader.atomic_files import folder_lock, unfinished_folder, write_text
from dataloader.errors import InputError
from routing_moe.checkpoints.folder import find_checkpoint
from routing_moe.cli.merge import main as merge
from routing_moe.cli.report import main as report
from routing_moe.cli.train import main as train
from routing_moe.io.files import replacing_directory

# ---- flushes and renames


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


@pytest.mark.parametrize("step", ["open", "fsync"])
def test_a_full_disk_is_reported_and_the_previous_file_remains(tmp_path, monkeypatch, step):
    def fails(*_):
        raise OSError(28, "No space left on device")

    write_text(tmp_path / "a", "old")
    monkeypatch.setattr(Path if step == "open" else os, step, fails)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "a", "new")
    monkeypatch.undo()
    assert contents(tmp_path) == {"a": b"old"}


@pytest.mark.parametrize("kind", [RuntimeError, Exception])  # torch's, tokenizers'
def test_a_full_disk_reported_by_a_library_is_an_os_error(tmp_path, kind):
    def write():
        with replacing_directory(tmp_path / "last"):
            raise kind("unexpected pos 64 vs 0")

    with pytest.raises(OSError, match=r"last cannot be written; is the disk full\? \(unexpected pos 64 vs 0"):
        write()
    assert not os.listdir(tmp_path)


def test_a_reader_between_the_two_renames_of_a_checkpoint_loses_nothing(tmp_path, monkeypatch):
    rename = os.rename

    def looked_at(old, new):
        if Path(new) == tmp_path / "best" and Path(old).name == "new":
            monkeypatch.setattr(os, "rename", rename)
            assert find_checkpoint(tmp_path / "best")  # restores the previous one
        rename(old, new)

    for content in ("old", "new"):
        with replacing_directory(tmp_path / "best") as folder:
            (folder / "config.json").write_text(content, encoding="utf-8")
        if content == "old":
            monkeypatch.setattr(os, "rename", looked_at)
    assert contents(tmp_path) == {"best/config.json": b"new"}


@pytest.mark.usefixtures("quick_pictures")
def test_files_for_resuming_are_flushed_before_the_training_state(fresh, calls):
    assert run(fresh.gym, fresh.bart, fresh.out, total_steps=2, eval_period=1) == 0
    steps = [call[2].name for call in calls if call[0] == "rename"]
    for file in ("losses.csv", "dev_results.csv", "route_tasks.txt", "route.npy", "route_t1.npy"):
        assert file in steps[: steps.index("last")]
    first_state = next(n for n, call in enumerate(calls) if call[0] == "rename" and call[2].name == "last")
    assert ("fsync", fresh.out / "curves.csv") in calls[:first_state]
    assert ("fsync", calls[first_state][1] / "training_state.pt") in calls[:first_state]


# ---- what killed processes leave, and what users have


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


@pytest.mark.parametrize("other", [None, "log.txt"])
def test_a_failed_rename_leaves_both_checkpoints(other, tmp_path, monkeypatch):
    """By an error of the disk, or because another program has made the folder meanwhile."""

    def write(content: str) -> None:
        with replacing_directory(tmp_path / "last") as folder:
            (folder / "config.json").write_text(content, encoding="utf-8")

    def failing(old, new):
        if Path(old).name == "new" or Path(old).name == "previous":
            if not other:
                raise OSError(5, "Input/output error")
            (tmp_path / "last").mkdir(exist_ok=True)
            (tmp_path / "last" / other).touch()
        rename(old, new)

    write("old")
    rename = os.rename
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", failing)
        with pytest.raises(OSError, match=r"Input/output|not empty"):
            write("new")
    kept = {name.split("/", 1)[1]: content for name, content in contents(tmp_path).items() if name[0] == "."}
    assert kept == {"new/config.json": b"new", "previous/config.json": b"old"}
    if not other:
        assert find_checkpoint(tmp_path / "last")
        write("newer")
        assert contents(tmp_path) == {"last/config.json": b"newer"}


def test_an_unfinished_folder_of_a_living_process_is_left_alone(tmp_path):
    with unfinished_folder(tmp_path / "a") as first:
        with unfinished_folder(tmp_path / "a") as second:
            assert sorted(tmp_path.iterdir()) == sorted([first, second])
        assert list(tmp_path.iterdir()) == [first]
    assert not os.listdir(tmp_path)


# ---- locks

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


def test_a_merge_and_a_report_are_refused_during_another_command(taken, capsys):
    chosen = typed(dict(routes_from=taken.out, model=taken.bart, output_dir=taken.out))
    output = refused(taken, capsys, lambda: merge(chosen))
    assert output.err == f"error: --output_dir {taken.out}: {TAKEN}\n"
    output = refused(taken, capsys, lambda: report([str(taken.out / "best")]))
    assert output.err == f"error: RUN {taken.out}: {TAKEN}\n"


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


def test_all_processes_of_a_refused_command_end_with_one_error(fresh):
    words = flags(fresh.gym, fresh.bart, fresh.out)
    with folder_lock(fresh.out):
        codes, stderr = in_two_processes(fresh.folder, lambda: train(words))
    assert codes == [2, 2]
    assert stderr == [f"error: --output_dir {fresh.out}: {TAKEN}\n", ""]
    assert contents(fresh.out) == {}
