"""Saves and loads checkpoint folders of a run: weights, progress, and the training state to resume from."""

import copy
import json
from pathlib import Path

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, in_brief
from dataloader.jsonfile import load_json_object
from routing_moe.io.files import replacing_directory, restore_previous

STATE_FILE = "training_state.pt"
PROGRESS_FILE = "checkpoint.json"  # step, temperature, dev score of a checkpoint


def find_checkpoint(path: str | Path) -> Path | None:
    """Returns the folder `path` if it holds a checkpoint, else None.

    Restores the previous checkpoint if a process died between the two renames that replace it.
    """
    path = Path(path)
    restore_previous(path)
    return path if (path / "config.json").is_file() else None


def save_checkpoint(
    model,
    tokenizer,
    path: str | Path,
    training_state: dict | None = None,
    progress: dict | None = None,
    keep: dict[str, bytes] | None = None,
) -> None:
    """Writes weights, configuration, tokenizer and task vectors to a folder, atomically.

    training_state: the state to resume from. progress: content for `load_progress`. keep: {name: content} of
    other files of the folder.
    """
    import torch  # takes seconds, which `find_checkpoint` need not wait for

    with replacing_directory(path) as folder:
        for name, content in (keep or {}).items():
            (folder / name).write_bytes(content)
        model.save_pretrained(folder)
        # `generate` of the checkpoint ends beams as the commands do; bart-base's configuration says True.
        generation = copy.deepcopy(model.generation_config)
        generation.early_stopping = False
        generation.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if progress is not None:
            write_text(folder / PROGRESS_FILE, json.dumps(progress, indent=1))
        if training_state is not None:
            torch.save(training_state, folder / STATE_FILE)


def load_progress(checkpoint: str | Path) -> dict:
    """Returns step, temperature, scores of a checkpoint, {} for one that was saved outside training."""
    path = Path(checkpoint) / PROGRESS_FILE
    progress = load_json_object(path, "the progress of a checkpoint") if path.is_file() else {}
    for name, value in progress.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{path}: {name} is {value!r}, must be a number; or delete the file")
    return progress


def load_training_state(path: str | Path) -> dict:
    """Returns the state saved with a checkpoint, with tensors on the CPU. Raises InputError."""
    import torch  # takes seconds

    file = Path(path) / STATE_FILE
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types of errors for broken files
        raise InputError(
            f"{file}: cannot be read ({in_brief(error)}); to start again, delete {file.parent}"
        ) from None
