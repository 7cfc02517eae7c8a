"""Files survive a power failure: content is flushed before the rename, the folder after it."""

import os
from pathlib import Path

import pytest
from tiny_runs import contents, run

from dataloader.atomic_files import flush, write_text
from routing_moe.checkpoints.folder import find_checkpoint
from routing_moe.io.files import replacing_directory
from routing_moe.plots.style import Figure, write_figure


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
    partial = tmp_path / "run.json.partial"
    assert calls == [("fsync", partial), ("rename", partial, tmp_path / "run.json"), ("fsync", tmp_path)]


def test_a_picture_is_written_like_any_result(tmp_path, calls):
    write_figure(Figure(figsize=(1, 1)), tmp_path / "route.png")
    assert [call[0] for call in calls] == ["fsync", "rename", "fsync"]
    assert calls[1][2] == tmp_path / "route.png"


def test_a_checkpoint_is_flushed_before_the_previous_one_is_removed(tmp_path, calls):
    place, partial, previous = (tmp_path / name for name in ("best", "best.partial", "best.previous"))
    place.mkdir()
    with replacing_directory(place) as folder:
        (folder / "part").mkdir()
        for name in ("config.json", "part/a"):
            (folder / name).touch()
    of_an_interrupted_write = [("remove", partial), ("remove", previous)]
    done = [call for call in calls if call not in of_an_interrupted_write] + [calls[-1]]
    written = [("fsync", partial / name) for name in ("part/a", "part", "config.json", "")]
    assert done == [
        *written,
        ("rename", place, previous),
        ("rename", partial, place),
        ("fsync", tmp_path),
        ("remove", previous),
    ]


def test_a_file_system_that_cannot_flush_folders_is_supported(tmp_path, monkeypatch):
    def cannot(descriptor):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", cannot)
    write_text(tmp_path / "a", "b")
    assert contents(tmp_path) == {"a": b"b"}


def test_a_failing_disk_is_reported(tmp_path, monkeypatch):
    def fails(descriptor):
        raise OSError(5, "Input/output error")

    write_text(tmp_path / "a", "old")
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="Input/output error"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    with pytest.raises(OSError, match="Input/output error"):
        flush(tmp_path)


def test_a_reader_between_the_two_renames_of_a_checkpoint_loses_nothing(tmp_path, monkeypatch):
    rename = os.rename

    def looked_at(old, new):
        if str(old).endswith(".partial"):
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
    first_state = calls.index(("rename", fresh.out / "last.partial", fresh.out / "last"))
    assert ("fsync", fresh.out / "curves.csv") in calls[:first_state]
    assert ("fsync", fresh.out / "last.partial/training_state.pt") in calls[:first_state]
