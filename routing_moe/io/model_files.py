"""Chooses the files of a model's repository or folder that loading needs, by their names."""

import re
from collections.abc import Collection
from pathlib import Path

PART = r"(?:\d+_\w+/)?"  # folder of a module of a sentence encoder
SMALL_FILES = re.compile(rf"{PART}[^/]+\.(?:json|txt|model)")
# Of a run (`report/shared_run.py`): vectors and curves; scores; routes.
OF_RUN = re.compile(r"[^/]+\.(?:npy|npz|csv)|best/[^/]+\.csv|\d+-steps/route[^/]*\.(?:npy|txt)")
TOKENIZERS = re.compile(r"tokenizer\.json|vocab\.(?:json|txt)|.+\.model")
WEIGHTS = (("model", "safetensors"), ("pytorch_model", "bin"))  # what transformers loads, the first one found


def names_in(folder: Path) -> set[str]:
    """Returns the paths of all files of a folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def files_to_load(names: Collection[str]) -> list[str]:
    """Returns those files of a repository that loading needs: small_files(names), then weights.

    Weights for other libraries (Flax, TensorFlow, Rust, ONNX), a second format and subfolders are left out.
    """
    parts = sorted({re.match(PART, name)[0] for name in names})
    return small_files(names) + [file for part in parts for file in weights_among(names, part)]


def small_files(names: Collection[str]) -> list[str]:
    """Returns the files of configuration and tokenizer, and those of a run."""
    return sorted(name for name in names if SMALL_FILES.fullmatch(name) or OF_RUN.fullmatch(name))


def weights_among(names: Collection[str], part: str = "") -> list[str]:
    """Returns the files of weights that transformers would load; [] if there are none or a shard is missing.

    part: "", or the folder of a module of a sentence encoder, with a slash.
    """
    for stem, ending in WEIGHTS:
        if (single := f"{part}{stem}.{ending}") in names:
            return [single]
        shards = [re.fullmatch(rf"{part}{stem}-\d+-of-(\d+)\.{ending}", name) for name in sorted(names)]
        found = [shard for shard in shards if shard]
        if found and len(found) == int(found[0][1]):
            return [shard[0] for shard in found]
    return []


def has_tokenizer(names: Collection[str]) -> bool:
    return any(TOKENIZERS.fullmatch(name) for name in names)
