"""Finds and checks a trained model on disk, of this or the published code, without loading it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from dataloader.errors import InputError, in_brief
from dataloader.jsonfile import load_json_object
from routing_moe.checkpoints.folder import find_checkpoint
from routing_moe.checkpoints.start import TOKENIZER_FILES
from routing_moe.model.configuration import RoutingBartConfig
from routing_moe.model.loading import load_routing_bart, load_routing_config
from routing_moe.model.modeling import RoutingBartForConditionalGeneration
from routing_moe.model.published import upstream_config
from routing_moe.model.task_vectors import VECTORS_FILE, load_task_vectors


@dataclass(frozen=True)
class SavedMixture:
    """A checkpoint of a routing BART that was found but is not loaded yet."""

    checkpoint: Path
    config: RoutingBartConfig
    is_published: bool = False

    def load(self) -> RoutingBartForConditionalGeneration:
        """Returns the model. Raises InputError if its files are broken."""
        cls = RoutingBartForConditionalGeneration
        if self.is_published:
            return cls.from_upstream(self.checkpoint.parent, self.checkpoint.name)
        return load_routing_bart(cls, self.checkpoint)

    def files(self) -> list[Path]:
        """Returns the files that contain the weights."""
        if self.is_published:
            return [self.checkpoint / "model.pt", self.checkpoint / VECTORS_FILE]
        return weight_files(self.checkpoint)

    def checksums(self) -> dict[str, str]:
        """Returns {name: SHA-256} of the files that determine the model's output."""
        return checksums(self.files(), self.checkpoint)


def find_mixture(folder: str | Path, checkpoint_name: str | None, name_flag: str) -> SavedMixture:
    """Returns the checkpoint in a run folder (of this or the published code), or that is `folder` itself.

    checkpoint_name: name of the checkpoint in a run folder, from the flag `name_flag`; None: "best".
    Raises InputError if there is no valid checkpoint.
    """
    folder, name = Path(folder), checkpoint_name or "best"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected a run or a checkpoint")
    if not (folder / "config.json").is_file():
        if checkpoint := find_checkpoint(folder / name):
            return routing_mixture(checkpoint)
        raise InputError(no_checkpoint(folder, name, name_flag))
    published = load_json_object(folder / "config.json", "a model's configuration")
    if "router_block_num" in published:
        return published_mixture(folder, name, published)
    if checkpoint_name:
        raise InputError(f"{folder} is a checkpoint; --{name_flag} has an effect with run folders only")
    return routing_mixture(folder)


def routing_mixture(checkpoint: Path) -> SavedMixture:
    """Returns a checkpoint of this code. Raises InputError if its configuration is broken."""
    load_routing_config(checkpoint)
    config = checked_config(checkpoint / "config.json", RoutingBartConfig.from_pretrained, checkpoint)
    return SavedMixture(checkpoint, config)


def published_mixture(run: Path, name: str, published: dict) -> SavedMixture:
    """Returns the checkpoint `name` in a run of the published code, whose config.json is `published`.

    Raises InputError if it is missing or its configuration is broken.
    """
    if not (run / name / "model.pt").is_file():
        there = ", ".join(sorted(path.parent.name for path in run.glob("*/model.pt"))) or "none"
        raise InputError(f"{run / name / 'model.pt'}: not found; checkpoints there: {there}")
    names, vectors_ND = load_task_vectors(run / name)
    config = checked_config(run / "config.json", upstream_config, published, names, vectors_ND.shape[1])
    return SavedMixture(run / name, config, is_published=True)


def checked_config(path: Path, make, *arguments) -> RoutingBartConfig:
    """Returns make(*arguments). Raises InputError that names `path` for any error."""
    try:
        return make(*arguments)
    except Exception as error:  # transformers wraps the error that the configuration raised
        reason = in_brief(error.__cause__ or error)
        raise InputError(f"{path}: not the configuration of a routing BART ({reason})") from None


def no_checkpoint(folder: Path, name: str, name_flag: str) -> str:
    """Returns the message for a folder without config.json, both in it and in its subfolder `name`."""
    if (folder / "model.pt").is_file():
        return f"{folder} has no config.json; for a run of the published code, give its parent folder"
    there = ", ".join(sorted(path.parent.name for path in folder.glob("*/config.json")))
    if there:
        return f"{folder} has no checkpoint {name!r}; choose one with --{name_flag}: {there}"
    return f"{folder} is neither a run, with {name}/config.json, nor a checkpoint, with config.json"


def weight_files(source: str | Path) -> list[Path]:
    """Returns the files with a model's weights.

    source: a file, a folder, or a hub name (files in the cache).
    """
    path = Path(source)
    if path.is_file():
        return [path]
    if not path.is_dir():
        cached = try_to_load_from_cache(str(source), "config.json")
        if not isinstance(cached, str):
            return []
        path = Path(cached).parent
    return sorted(path.glob("model*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))


def checksums(weights: list[Path], place: str | Path) -> dict[str, str]:
    """Returns {name: SHA-256} of weight files, and of the configuration and tokenizer files in `place`."""
    files = {file.name: file for file in weights}
    files |= {name: Path(place) / name for name in ("config.json", *TOKENIZER_FILES)}
    return {name: sha256(file) for name, file in files.items() if file.is_file()}


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
