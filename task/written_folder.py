"""Output folders that a command writes at once, together with its settings."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object
from routing_moe.config.console import run_command
from routing_moe.config.flags import REQUIRED, Command, differences, flags_of, group
from routing_moe.io.files import replacing_directory

FILES = group("files")


@dataclass(frozen=True, kw_only=True)
class FolderCommand(Command):
    """Base of the commands that write --output_dir at once."""

    settings_file: ClassVar[str] = "settings.json"  # in the folder, with the other settings

    output_dir: Path = FILES(REQUIRED, "folder to write, new or empty", on_resume=True)


def saved_settings(command: type[FolderCommand], folder: Path) -> dict[str, Any]:
    """Returns the settings, except --output_dir, that the command wrote a folder with. Raises InputError."""
    path = folder / command.settings_file
    saved = load_json_object(path, f"the settings of {command.program}").get("settings")
    known = flags_of(command).keys() - {"output_dir"}
    if not isinstance(saved, dict) or saved.keys() != known:
        raise InputError(f"{path} does not have the settings of {command.program}; name another folder")
    return saved


def is_written(settings: FolderCommand) -> bool:
    """Returns whether --output_dir was written with these settings. Raises InputError for anything else."""
    folder, file = Path(settings.output_dir), settings.settings_file
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    if not (folder / file).is_file():
        raise InputError(f"--output_dir {folder} is not empty and has no {file}; name a new folder")
    if problems := differences(settings, saved_settings(type(settings), folder), str(folder / file)):
        raise InputError(f"{problem}; name a new folder, or delete this one" for problem in problems)
    return True


@contextmanager
def written_at_once(settings: FolderCommand, **described) -> Iterator[Path]:
    """Yields an empty folder that becomes --output_dir, with the settings and `described`, after the block."""
    saved = settings.to_dict()
    del saved["output_dir"]
    with replacing_directory(settings.output_dir) as partial:
        yield partial
        write_json(partial / settings.settings_file, {"settings": saved, **described})


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, indented."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def run_once(
    write: Callable,
    command: type[FolderCommand],
    argv: list[str] | None,
    description: str | None,
    check: Callable = lambda settings: None,
) -> int:
    """Returns the exit code of write(settings, check(settings)); a folder that has these settings is kept."""

    def run(settings: FolderCommand) -> None:
        inputs = check(settings)
        if is_written(settings):
            print(f"{settings.output_dir} was already written with these settings")
        else:
            write(settings, inputs)

    return run_command(run, command, argv, description)
