"""Finds runs in the folders that a user names: for comparisons and gains."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataloader.errors import InputError
from routing_moe.io.files import distinct_tails, folder_problem

OF_A_SEED = re.compile(r"seed\d+")  # of the variant that the folder above is named after


def summary_path(names: Iterable[str]) -> Path:
    """Returns the path of a folder or of tables that compare these, without an extension."""
    return Path("results_summary", re.sub(r"[^\w.-]", "-", "_".join(["CMP", *names])))


@dataclass(frozen=True)
class RunFolder:
    """A run of a variant. name: of its folder; "" for the only run of a variant, which is named after it."""

    variant: str
    name: str
    folder: Path


def find_run_folders(folders: Sequence[Path], file: str) -> list[RunFolder]:
    """Returns the runs, which have the file, that the folders are, or hold as <run>/ or <variant>/<run>/.

    They are in the order of the folders, in a folder by name. Variants of the same name are named after more
    of their path. Raises InputError for a folder without runs.
    """
    variant_of = {}
    for folder in folders:
        if problem := folder_problem(folder):
            raise InputError(problem)
        found = _runs_of_variants(folder, file)
        if not found:
            raise InputError(f"{folder} holds no runs; expected {file} in it, <run>/ or <variant>/<run>/")
        variant_of |= found
    variants = list(dict.fromkeys(variant_of.values()))
    names = dict(zip(variants, distinct_tails(variants), strict=True))
    return [
        RunFolder(names[variant], "" if variant == run.absolute() else run.name, run)
        for run, variant in variant_of.items()
    ]


def _runs_of_variants(folder: Path, file: str) -> dict[Path, Path]:
    """Returns {run: absolute folder of its variant}. A run in a run, such as its first stage, is none."""
    if (folder / file).is_file():
        place = folder.absolute()
        return {folder: place.parent if OF_A_SEED.fullmatch(place.name) else place}
    found = {}
    for place in sorted(folder.iterdir()):
        if (place / file).is_file():
            found |= _runs_of_variants(place, file)
        else:
            runs = sorted(path.parents[file.count("/")] for path in place.glob(f"*/{file}"))
            found |= dict.fromkeys(runs, place.absolute())
    return found
