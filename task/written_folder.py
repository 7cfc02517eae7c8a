"""Output folders that a command writes at once, together with its settings."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object
from routing_moe.config.flags import Command, differences
from routing_moe.io.files import replacing_directory, unwritable

SETTINGS_FILE = "settings.json"


def is_written(settings: Command) -> bool:
    """Returns whether --output_dir was written with these settings.

    Raises InputError if it cannot be written, or holds something else.
    """
    folder, file = Path(settings.output_dir), Path(settings.output_dir) / SETTINGS_FILE
    if reason := unwritable(folder):
        raise InputError(f"--output_dir {reason}")
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    if not file.is_file():
        raise InputError(f"--output_dir {folder} is not empty and has no {SETTINGS_FILE}; name a new folder")
    saved = load_json_object(file, "the settings of the command that wrote the folder")
    if saved.get("program") != settings.program:
        raise InputError(f"--output_dir {folder} was written by {saved.get('program')}; name a new folder")
    if faults := differences(settings, saved, str(file)):
        raise InputError(f"{fault}; name a new folder, or delete this one" for fault in faults)
    return True


def print_written(settings: Command) -> None:
    """Prints that there is nothing to do."""
    print(f"{settings.output_dir} was already written with these settings")


@contextmanager
def written_at_once(settings: Command) -> Iterator[Path]:
    """Yields an empty folder that becomes --output_dir, with the settings, when the block ends."""
    saved = {"program": settings.program} | settings.to_dict()
    del saved["output_dir"]
    with replacing_directory(settings.output_dir) as partial:
        yield partial
        write_text(partial / SETTINGS_FILE, json.dumps(saved, indent=2) + "\n")
