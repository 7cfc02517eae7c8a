"""How the texts of an adapter are read, in a file beside it: an adapter of peft does not say it.

text_settings.json    {"task": "boolq", "max_input_length": 256, "prompt_format": "chat", ...}
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, in_short
from dataloader.jsonfile import load_json_object
from routing_moe.config.flags import flags_of, inherited, value_problems
from routing_moe.config.shared import (
    FORMAT_FLAGS,
    LENGTHS,
    TEXT_SETTINGS,
    TextFlags,
    text_problems,
    text_settings,
    trained_texts,
)

ADAPTER_TEXTS = "text_settings.json"


def write_adapter_texts(folder: Path, task: str | None, texts: Mapping) -> None:
    """Writes how texts are read. task: the name in the prefix of the inputs; None: of several tasks."""
    write_text(folder / ADAPTER_TEXTS, json.dumps({"task": task} | dict(texts), indent=1))


def texts_of_adapters(folders: Mapping[str, Path], shown: str | None = None) -> tuple[dict | None, list[str]]:
    """Returns ({name: value} of TEXT_SETTINGS that are equal, None if texts look different, notes).

    folders: {task: folder of an adapter}. shown: the task that inputs begin with, None: that of each folder.
    Raises InputError for a damaged file.
    """
    known, notes = {}, []
    for task, folder in folders.items():
        path = folder / ADAPTER_TEXTS
        if not path.is_file():
            continue
        saved = load_json_object(path, "how the texts of an adapter are read")
        known[task] = texts = inherited(TextFlags, saved, path, TEXT_SETTINGS)
        if problems := value_problems(texts, flags_of(TextFlags)):
            raise InputError(f"{path}: {problem.removeprefix('--')}" for problem in problems)
        shows_name = not (texts.get("hide_task_names") or texts.get("no_prefix"))
        if shows_name and saved.get("task") not in (None, shown or task):
            was = f"was trained on inputs that begin with [{saved['task']}]"
            notes.append(f"note: the adapter {folder} {was}; here they begin with [{shown or task}]")
    if not known:
        return None, notes
    first, *others = known
    looks = {task: {name: texts.get(name) for name in FORMAT_FLAGS} for task, texts in known.items()}
    if different := [task for task in others if looks[task] != looks[first]]:
        others = f"the adapters of {in_short(different)} read texts in other ways than {first}"
        return None, [*notes, f"note: {others}: none is kept"]
    equal = set.intersection(*(set(texts.items()) for texts in known.values()))
    return dict(equal), notes


def keep_texts(model, texts: Mapping | None, given: Mapping, place: str) -> list[str]:
    """Keeps how texts are read in a model's configuration: as `texts` say, and by the `given` flags.

    Returns a note if neither says it. Raises InputError if they contradict each other or do not fit.
    """
    config = model.config
    config.text_settings = dict(texts) if texts else None
    lengths = [name for name in LENGTHS if name in given]
    settings = SimpleNamespace(**text_settings(TextFlags(**trained_texts(texts, given) | given)))
    if problems := text_problems(settings, config, place, lengths):
        raise InputError(problems)
    config.text_settings = (dict(texts or {}) | given) or None
    if config.text_settings:
        return []
    flags = "such as --prompt_format chat, or --no_prefix for inputs that do not begin with [task]"
    return [f"note: no model says how texts are read; give the flags of its training, {flags}"]
