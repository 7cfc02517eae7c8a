"""The fault campaign: commands that are killed, files that are damaged, and what counts as a failure."""

import json
import os
import signal

import pytest
import torch

from benchmarks import fault_commands, fault_kills, fault_mutants, faults
from dataloader.errors import InputError

TINY_CAMPAIGN = ["--kills", "1", "--commands", "vectors", "--mutants", "60", "--no_folders", "--seed", "2"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the campaign forks")
def test_a_killed_command_and_damaged_files_cause_no_failures(tmp_path, capsys):
    kinds = ["tsv", "jsonl", "split", "features", "descriptions", "npy"]  # those that need no run
    code = faults.main([*TINY_CAMPAIGN, "--work_dir", str(tmp_path), "--kinds", *kinds])
    (line,) = capsys.readouterr().out.splitlines()
    report = json.loads(line)
    assert (code, report["failed"], report["failures"]) == (0, 0, [])
    killed = report["kills"]["vectors"]
    assert killed["kills"] >= killed["resumed"] == killed["equal"] == killed["runs"] == 1
    assert list(report["mutants"]) == kinds
    for counts in report["mutants"].values():
        assert counts["mutants"] == counts["accepted"] + counts["refused"] == 10


def test_differing_files_tracebacks_and_unclear_errors_are_detected(tmp_path, monkeypatch):
    folder, expected = tmp_path / "run", tmp_path / "expected"
    for place in (folder, expected):
        place.mkdir()
        (place / "one.json").write_text('{"seconds": 1, "score": 2}')
        torch.save({"step": 1, "m": torch.ones(2)}, place / "state.pt")
    (folder / "one.json").write_text('{"score": 2, "seconds": 3}')
    assert fault_commands.differences(folder, expected) == []
    (folder / "one.json").write_text('{"seconds": 1, "score": 3}')
    torch.save({"step": 1, "m": torch.zeros(2)}, folder / "state.pt")
    (folder / "last.partial").write_text("")
    (expected / "lost.csv").write_text("")
    found = ["lacks lost.csv", "has in addition last.partial", "one.json differs", "state.pt differs"]
    assert fault_commands.differences(folder, expected) == found

    def outcome(error):
        def read(_):
            raise error

        return fault_mutants.outcome_of(read, None, tmp_path / "x.json")[0]

    assert outcome(InputError(f"{tmp_path / 'x.json'} is damaged")) == "refused"
    assert outcome(InputError("is damaged")) == "unclear"
    assert outcome(ValueError("x")) == outcome(MemoryError()) == "traceback"


STARTS_ANOTHER = """
import pathlib, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
pathlib.Path(sys.argv[1]).touch()
time.sleep(600)
"""


def test_a_kill_includes_processes_in_other_sessions(tmp_path):
    running = fault_commands.launched(["-c", STARTS_ANOTHER, str(tmp_path / "started")], tmp_path / "log.txt")
    while running.wait(0.01) is None and not (tmp_path / "started").exists():
        pass
    running.kill()
    assert running.code == -signal.SIGKILL
    assert running.left_over(seconds=10) == []


def test_kills_are_distributed_by_share_and_every_command_has_at_least_one():
    names = list(fault_commands.Commands.NAMES)
    assert fault_kills.kills_per_command(len(names), names) == dict.fromkeys(names, 1)
    assert fault_kills.kills_per_command(15, ["train", "merge"]) == {"train": 11, "merge": 4}
