"""Run folders: atomic files and checkpoints, the training state, what is needed to resume.

    run.json  log.txt  losses.csv  curves.csv  best/  last/  <step>-steps/

A checkpoint is written beside its place and renamed, so that a process killed at any moment leaves the last
good one. Files named *.partial and *.previous are traces of such a kill; `find_checkpoint` knows them.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch

from dataloader.errors import InputError, in_brief
from dataloader.jsonfile import load_json_object

STATE_FILE = "training_state.pt"
LIBRARIES = ("torch", "transformers", "accelerate", "numpy", "tokenizers")


def write_text(path: str | Path, text: str) -> None:
    """Write a file at once or not at all."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


@contextmanager
def replacing_directory(path: str | Path):
    """Yield an empty folder that takes the place of `path` when the block ends without an error."""
    path = Path(path)
    partial, previous = (path.with_name(path.name + end) for end in (".partial", ".previous"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    if path.exists():
        shutil.rmtree(previous, ignore_errors=True)
        os.rename(path, previous)
    os.rename(partial, path)
    shutil.rmtree(previous, ignore_errors=True)


def find_checkpoint(path: str | Path) -> Path | None:
    """The folder `path`, or the one it was about to replace when the process died; None if neither is."""
    path = Path(path)
    candidates = (path, path.with_name(path.name + ".previous"))
    return next((folder for folder in candidates if (folder / "config.json").is_file()), None)


def save_checkpoint(model, tokenizer, path: str | Path, training_state: dict | None = None) -> None:
    """Write weights, config, tokenizer and task vectors; with a training state, what resuming needs."""
    with replacing_directory(path) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if training_state is not None:
            torch.save(training_state, folder / STATE_FILE)


def load_training_state(path: str | Path) -> dict:
    """The state saved with a checkpoint, tensors on the CPU."""
    file = Path(path) / STATE_FILE
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # truncated, foreign or unreadable: all the same to the user
        raise InputError(
            f"{file}: cannot be read ({in_brief(error)}); to start anew, delete {file.parent}"
        ) from None


def describe_run(settings: dict, command: list[str] | None = None) -> dict:
    """What `run.json` holds: settings, command (that of the process by default), versions, git commit."""
    repository = Path(__file__).resolve().parents[1]
    asked = subprocess.run(
        ["git", "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "settings": settings,
        "command": shlex.join(command or sys.argv),
        "versions": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        "git": asked.stdout.strip() or None,
    }


def load_run_settings(output_dir: str | Path) -> dict | None:
    """The settings in `run.json`, or None if the folder holds no run."""
    path = Path(output_dir) / "run.json"
    if not path.is_file():
        return None
    settings = load_json_object(path, "the description of a run").get("settings")
    if not isinstance(settings, dict):
        raise InputError(f"{path}: has no settings of a run; name another folder, or delete the file")
    return settings
