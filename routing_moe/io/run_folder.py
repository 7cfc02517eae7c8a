"""Reads and describes `run.json`: the settings, command, versions and git commit of a run."""

import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object

LIBRARIES = ("torch", "transformers", "accelerate", "numpy", "tokenizers")


def describe_run(settings: dict, command: list[str] | None = None) -> dict:
    """What `run.json` holds: settings, command (that of the process by default), versions, git commit."""
    return {
        "settings": settings,
        "command": shlex.join(command or sys.argv),
        "versions": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        "git": git_commit(),
    }


def git_commit() -> str | None:
    """The commit of this code, or None if it is no git checkout or there is no git."""
    repository = str(Path(__file__).resolve().parents[2])
    command = ["git", "-C", repository, "rev-parse", "HEAD"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return asked.stdout.strip() or None


def load_run_settings(output_dir: str | Path) -> dict | None:
    """The settings in `run.json`, or None if the folder holds no run."""
    path = Path(output_dir) / "run.json"
    if not path.is_file():
        return None
    settings = load_json_object(path, "the description of a run").get("settings")
    if not isinstance(settings, dict):
        raise InputError(f"{path}: has no settings of a run; name another folder, or delete the file")
    return settings
