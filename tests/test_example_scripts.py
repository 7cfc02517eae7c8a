"""The scripts of example_scripts/: their commands have flags that exist, and whole scripts run."""

import json
import os
import shlex
import shutil
import subprocess
from argparse import ArgumentParser
from pathlib import Path

import fork_server
import pandas as pd
import pytest
from tiny_runs import ROOT, write_gym

from routing_moe.cli import entry
from routing_moe.config import flags
from routing_moe.io.run_folder import load_run_settings

SCRIPTS = sorted(path.name for path in ROOT.glob("example_scripts/*.sh") if path.name != "setup.sh")
GYM = "--train_dir gym"
WORDS = {  # what follows a script, where that is not only a gym
    "assemble_experts.sh": f'"colour count" mine {GYM}',
    "build_a_checkpoint2.sh": "--routes_from run",
    "build_gym.sh": "",
    "compare_conflict.sh": "",
    "quickstart.sh": "",
    "real_gym_study.sh": f"{GYM} --model bart",
    "task_vectors.sh": f"fisher {GYM}",
    "understand.sh": "run",
    **{
        name: f'test run mine "--samples first" {GYM}'.replace('"', "")
        for name in SCRIPTS
        if name.startswith("finetune")
    },
}
WITHOUT_GYM = (
    "build_a_checkpoint2.sh",
    "build_gym.sh",
    "compare_conflict.sh",
    "quickstart.sh",
    "understand.sh",
)
SETTINGS = {"SEEDS": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the scripts with a small gym; its Python runs commands in forks of a server."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "example_scripts", folder / "example_scripts")
    for name in ("routing_moe", "dataloader", "task", "requirements.txt", "setup.py"):
        (folder / name).symlink_to(ROOT / name)
    write_gym(folder / "gym")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.join(fork_server.client())} "$@"\n')
    python.chmod(0o755)
    return folder


def call(folder: Path, line: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if name not in ("DATA_DIR", "OUTPUT_DIR")}
    env |= {"PYTHON": str(folder / "python"), "PYTHONPATH": str(ROOT)} | SETTINGS | variables
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done


def commands_of(folder: Path, line: str, **variables: str) -> list[list[str]]:
    """Returns the commands that a script prints with --dry_run, those of the scripts that it calls in their place."""
    line = line.replace(".sh", ".sh --dry_run", 1)
    found = []
    for command in call(folder, line, **variables).stdout.splitlines():
        if command.startswith("routing-moe "):
            found.append(shlex.split(command)[1:])
        elif "example_scripts/" in command and command.startswith(("bash ", "env ")):
            found += commands_of(folder, command, **variables)
    return found


class Parsed(Exception):
    """Ends a command once its flags are parsed."""


@pytest.fixture
def parse(monkeypatch):
    """parse(words): `routing-moe WORDS`, whose flags must exist, until they are parsed."""

    def parse_known_args(self, args=None, namespace=None):
        _, unknown = ArgumentParser.parse_known_args(self, args, namespace)
        assert not unknown
        raise Parsed

    def parse(words: list[str]) -> None:
        with pytest.raises(Parsed):
            entry.main(words)

    monkeypatch.setattr(flags.Parser, "parse_known_args", parse_known_args)
    return parse


@pytest.mark.parametrize("small", ["", "--small"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_of_a_script_parses(script, small, copy, parse):
    words = WORDS.get(script, GYM)
    commands = commands_of(copy, f"bash example_scripts/{script} {small} {words}")
    assert commands
    for command in commands:
        parse(command)


def test_the_whole_study_of_the_paper_is_listed(copy):
    commands = commands_of(copy, f"bash example_scripts/reproduce_paper.sh {GYM}")
    counts = pd.Series([command[0] for command in commands]).value_counts().to_dict()
    assert counts == {"train": 26, "finetune": 14, "collect-results": 14, "vectors": 6, "merge": 2} | {
        name: counts[name] for name in ("compare", "compute-arg")
    }
    assert len({tuple(command) for command in commands if command[0] in ("train", "finetune", "merge")}) == 42


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name not in WITHOUT_GYM])
def test_without_a_gym_one_error_names_the_flag_the_variable_and_small(script, copy):
    words = WORDS.get(script, "").replace(GYM, "")
    done = call(copy, f"bash example_scripts/{script} {words}", check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert all(name in line for name in ("--train_dir", "DATA_DIR", "--small"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_head_of_a_script_names_the_variables_that_it_reads(script):
    text = (ROOT / "example_scripts" / script).read_text()
    head = text[: text.index("source ")] if "source " in text else text
    read = {name for name in ("OUTPUT_DIR", "SEEDS", "VARIANTS", "KINDS", "ARMS", "JOBS", "DATA_DIR", "TASKVECS", "SPLIT")
            if f"${{{name}:" in text}  # fmt: skip
    assert {name for name in read if name not in head} == set()


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which("shellcheck", path=f"{Path(os.sys.executable).parent}:{os.environ['PATH']}")
    scripts = [*ROOT.glob("example_scripts/*.sh"), *ROOT.glob("tests/*.sh"), ROOT / ".ci/run"]
    done = subprocess.run(
        [shellcheck, *map(str, scripts)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
