"""Shell scripts run in a copy of the repository with a fake Python that records its arguments."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tiny_runs import ROOT

FAKE_PYTHON = """#!/usr/bin/env bash
echo "$@" >>{folder}/calls
case "$*" in *list_tasks*) exec {python} "$@" ;; *"/{failing} --do_train"*) exit 3 ;; esac
{otherwise}
"""


class Scripts:
    """A copy of the scripts with links to the packages; outputs are written there."""

    def __init__(self, folder: Path, gym: Path, bart: Path):
        self.folder, self.gym, self.bart = folder, gym, bart
        shutil.copytree(ROOT / "example_scripts", folder / "example_scripts")
        for package in ("dataloader", "routing_moe", "task"):
            (folder / package).symlink_to(ROOT / package)

    def run(self, script: str, *arguments: str, really: bool | str = False, failing="none", **variables: str):
        """Runs a script; returns (exit code, recorded Python commands, output).

        really: execute all commands except for `failing`; if it is a text, only commands that contain it.
        """
        which = really if isinstance(really, str) else ""
        otherwise = f'case "$*" in *{which}*) exec {sys.executable} "$@" ;; esac' if really else ""
        names = dict(folder=self.folder, python=sys.executable, failing=failing, otherwise=otherwise)
        text = FAKE_PYTHON
        for name, value in names.items():
            text = text.replace(f"{{{name}}}", str(value))
        (self.folder / "python").write_text(text)
        (self.folder / "python").chmod(0o755)
        (self.folder / "calls").write_text("")
        done = subprocess.run(
            ["bash", str(self.folder / "example_scripts" / script), *arguments],
            env={"PATH": os.environ["PATH"], "PYTHON": str(self.folder / "python"), "OMP_NUM_THREADS": "1"}
            | dict(MODEL=str(self.bart), DATA_DIR=str(self.gym))
            | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        calls = (self.folder / "calls").read_text().splitlines()
        return done.returncode, calls, done.stdout + done.stderr
