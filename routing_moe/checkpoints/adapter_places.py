"""Finds adapters of peft, in folders and on the hub, and the bases that they name, without loading them."""

import os
from collections.abc import Mapping
from pathlib import Path

from dataloader.errors import InputError, Problems, did_you_mean, in_short, problem_context
from dataloader.jsonfile import load_json_object
from routing_moe.checkpoints.find import SavedMixture, SavedPlain, saved_fields
from routing_moe.config.assemble import ADAPTER_FILE, WEIGHTS_FILE
from routing_moe.config.choices import MIXTURES
from routing_moe.io.hub import cached_folder, is_on_hub, known_folder, local_folder, snapshot


def adapter_folders(flag: str, places: Mapping[str, str]) -> dict[str, Path | None]:
    """Returns the folder of each adapter, downloaded if it is on the hub; None for what is no adapter."""
    found = {}
    for name, place in places.items():
        with problem_context(f"--{flag} {name}: "):
            found[name] = _adapter_folder(place)
    return found


def _adapter_folder(place: str) -> Path | None:
    if not is_on_hub(place):
        return Path(place) if Path(place, ADAPTER_FILE).is_file() else None
    folder = cached_folder(place)
    if not folder or not any((folder / file).is_file() for file in (ADAPTER_FILE, "config.json")):
        folder = snapshot(place, WEIGHTS_FILE)
    return local_folder(place, (WEIGHTS_FILE,)) if (folder / ADAPTER_FILE).is_file() else None


def check_are_adapters(flag: str, places: Mapping[str, str], folders: Mapping[str, Path | None]) -> None:
    """Raises InputError that says of each place without an adapter what is there."""
    problems = []
    for name in (name for name, folder in folders.items() if folder is None):
        place, folder = places[name], known_folder(places[name])
        if not folder.exists():
            near = folder.parent.iterdir() if folder.parent.is_dir() else ()
            what = f"no such folder{did_you_mean(folder.name, (path.name for path in near))}"
        elif (folder / "config.json").is_file():
            what = "a whole model; experts are all adapters of peft, or, of a BART, all whole models"
        else:
            inside = sorted(path.parent.name for path in folder.glob(f"*/{ADAPTER_FILE}"))
            what = f"has no {ADAPTER_FILE}" + (f"; its folders {in_short(inside)} have one" if inside else "")
        problems.append(f"--{flag} {name}: {place}: {what}")
    if problems:
        raise InputError(problems)


def notes_on_bases(
    flag: str, place: str, base: SavedPlain | SavedMixture, folders: Mapping[str, Path]
) -> list[str]:
    """Returns notes on adapters that name another base than that at `place`.

    Raises InputError for one of another type, which is looked for in folders and the hub's cache.
    """
    kind = getattr(base.config, "backbone", None)
    kind = kind.model_type if kind else "bart"
    others: dict[str, list[str]] = {}
    for name, folder in folders.items():
        config = load_json_object(folder / ADAPTER_FILE, "the configuration of an adapter")
        named, revision = config.get("base_model_name_or_path"), config.get("revision")
        if not named or (named := f"{named}@{revision}" if revision else str(named)) == place:
            continue
        in_cache = Problems().of(known_folder, named)  # None: it is no valid name
        known = [path for path in (folder / named, Path(named), in_cache) if path and path.is_dir()]
        if os.path.realpath(known_folder(base.place)) in map(os.path.realpath, known):
            continue
        for path in known:
            other = saved_fields(path).get("model_type", kind)
            if other != kind and other not in MIXTURES:
                problem = f"--{flag} {name}: was trained on {named}, a {other!r} model"
                raise InputError(f"{problem}; --base {place} is a {kind!r} model")
        others.setdefault(named, []).append(name)
    return [
        f"note: --base is {place}, but {in_short(names)} was trained on {named}: the weights must be the same"
        for named, names in others.items()
    ]
