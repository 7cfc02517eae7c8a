"""Reads and describes `run.json`: the settings, command, versions and git commit of a run."""

import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object
from routing_moe.io.files import folder_problem
from routing_moe.io.hub import commits

CURVES_FILE = "curves.csv"
CLUSTERS_FILE = "clusters.csv"
# Of `routing-moe transfer`:
GROUPS_FILE, TABLE_FILE, TRANSFER_FILE = "groups.json", "transfer.csv", "transfer.json"
LIBRARIES = ("torch", "transformers", "accelerate", "numpy", "tokenizers")


def describe_run(settings: dict, command: list[str] | None = None) -> dict:
    """Returns the content of `run.json`: settings, command, versions, git commit, commits of hub names.

    command: the words of the command line; None: those of this process.
    """
    return {
        "settings": settings,
        "command": shlex.join(command or sys.argv),
        "versions": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        "git": git_commit(),
        "hub": commits(),
    }


def described_part(run: str | Path, name: str) -> dict[str, str]:
    """Returns "hub" (commits) or "files" (checksums) of the `run.json` of a run, {} if it has none."""
    path = Path(run) / "run.json"
    return load_json_object(path, "the description of a run").get(name, {}) if path.is_file() else {}


def git_commit() -> str | None:
    """Returns the commit of this code, or None if it is not a git checkout or git is missing."""
    repository = str(Path(__file__).resolve().parents[2])
    command = ["git", "-C", repository, "rev-parse", "HEAD"]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return finished.stdout.strip() or None


def settings_of_run(run: Path) -> dict:
    """Returns the settings in `run.json`. Raises InputError if the folder is not that of a run."""
    if problem := folder_problem(run):
        raise InputError(f"{problem}, expected a run folder")
    settings = load_run_settings(run)
    if settings is None:
        raise InputError(f"{run} is not a run folder: it has no run.json")
    return settings


def foreign_problems(output_dir: str | Path, names: Iterable[str]) -> list[str]:
    """Returns the problem of an --output_dir without run.json in which files or folders `names` exist."""
    found = [name for name in names if (Path(output_dir) / name).exists()]
    there = f"--output_dir {output_dir} holds {' and '.join(found)}, but no run.json; name another folder"
    return [there] if found else []


def load_run_settings(output_dir: str | Path) -> dict | None:
    """Returns the settings in `run.json`, or None if the folder has none. Raises InputError."""
    path = Path(output_dir) / "run.json"
    if not path.is_file():
        return None
    settings = load_json_object(path, "the description of a run").get("settings")
    if not isinstance(settings, dict):
        raise InputError(f"{path} has no settings of a run; name another folder, or delete the file")
    return settings
