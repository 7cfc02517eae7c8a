"""Shell scripts run in a copy of the repository with a fake Python that records its arguments."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import fork_server
from tiny_runs import ROOT

# Commands write the files that show that a run is finished; --equal_flops prints a number of steps.
FINISH = """
case "$*" in *--equal_flops*) echo 7 && exit ;; esac
case "$*" in
    *--predict_split?test*) result=best/eval-test_tasks-test-performance.csv ;;
    *cli.merge*) result=init/config.json ;;
    *task_emb*) result=meta.json ;;
    *) result=best/eval-test-performance.csv ;;
esac
case "$*" in
    *--output_file*) ;;
    *cli.report*) mkdir -p "$3/analysis" && touch "$3/analysis/report.html" ;;
esac
while [ $# -gt 0 ]; do
    case $1 in
        --output_dir) mkdir -p "$2/$(dirname $result)" && touch "$2/$result" ;;
        --output_file) mkdir -p "$(dirname "$2")" && touch "$2" ;;
    esac
    shift
done
"""
FAKE_PYTHON = """#!/usr/bin/env bash
echo "$@" >>{folder}/calls
case "$*" in
    *list_tasks*) exec {python} "$@" ;;
    "-m {failing} "*) exit 3 ;;
    *check_start*) ;;
    *"/{failing} --do_train"*) exit 3 ;;
esac
{otherwise}
"""


class Scripts:
    """A copy of the scripts with links to the packages; outputs are written there."""

    def __init__(self, folder: Path, gym: Path, bart: Path):
        self.folder, self.gym, self.bart = folder, gym, bart
        shutil.copytree(ROOT / "example_scripts", folder / "example_scripts")
        for package in ("benchmarks", "dataloader", "routing_moe", "task"):
            (folder / package).symlink_to(ROOT / package)

    def run(
        self,
        script: str,
        *arguments: str,
        really: bool | str = False,
        failing="none",
        finishes=False,
        **variables: str,
    ):
        """Runs a script; returns (exit code, recorded Python commands, output).

        really: execute all commands except for `failing`; if it is a text, only commands that contain it.
        failing: a module, or the end of the output folder of a training; its commands end with 3.
        finishes: recorded commands write empty files in place of their results.
        """
        which = really if isinstance(really, str) else ""
        python, otherwise = shlex.join(fork_server.client()), ""
        if really:
            otherwise = f'case "$*" in *{which}*) exec {python} "$@" ;; esac'
        otherwise += FINISH if finishes else ""
        names = dict(folder=self.folder, python=python, failing=failing, otherwise=otherwise)
        text = FAKE_PYTHON
        for name, value in names.items():
            text = text.replace(f"{{{name}}}", str(value))
        (self.folder / "python").write_text(text)
        (self.folder / "python").chmod(0o755)
        (self.folder / "calls").write_text("")
        done = subprocess.run(
            ["bash", str(self.folder / "example_scripts" / script), *arguments],
            env={"PATH": os.environ["PATH"], "PYTHON": str(self.folder / "python"), "OMP_NUM_THREADS": "1"}
            | dict(MIXED_PRECISION="no")  # otherwise the flags would depend on the machine
            | dict(MODEL=str(self.bart), DATA_DIR=str(self.gym))
            | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        calls = (self.folder / "calls").read_text().splitlines()
        return done.returncode, calls, done.stdout + done.stderr
