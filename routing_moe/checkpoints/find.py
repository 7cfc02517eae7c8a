"""Finds and checks a trained model on disk, of this or the published code, without loading it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dataloader.checksums import sha256
from dataloader.errors import InputError, fault_context, in_brief
from dataloader.jsonfile import load_json_object
from routing_moe.checkpoints.folder import find_checkpoint
from routing_moe.checkpoints.tokenizer_files import TOKENIZER_FILES
from routing_moe.config.finetune import FinetuneSettings
from routing_moe.config.train import TrainSettings
from routing_moe.io.hub import folder_of_run, is_hub_name, is_on_hub, local_folder, snapshot
from routing_moe.model.saved_config import (
    ROUTING_BART,
    SavedConfig,
    load_routing_config,
    published_fields,
)
from routing_moe.model.task_vectors import VECTORS_FILE, load_task_vectors

if TYPE_CHECKING:
    from routing_moe.model.modeling import RoutingBartForConditionalGeneration


@dataclass(frozen=True)
class SavedMixture:
    """A checkpoint of a routing BART that was found but is not loaded yet.

    kept: the model if it was loaded before it is needed; the next `load` returns it.
    """

    checkpoint: Path
    config: SavedConfig
    is_published: bool = False
    kept: list = field(default_factory=list, compare=False, repr=False)

    def load(self) -> "RoutingBartForConditionalGeneration":
        """Returns the model. Raises InputError if its files are broken."""
        if self.kept:
            return self.kept.pop()
        from routing_moe.model.loading import load_routing_bart  # imports torch, which takes seconds
        from routing_moe.model.modeling import RoutingBartForConditionalGeneration

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

    folder: also a hub name owner/name[@revision] (`folder_of_run`). checkpoint_name: name of the checkpoint
    in a run folder, from the flag `name_flag`; None: "best". Raises InputError if there is no valid one.
    """
    if checkpoint_name and is_on_hub(folder):
        raise InputError(f"{folder}: no such folder; of a run on the hub, leave --{name_flag} out")
    folder, name = folder_of_run(folder), checkpoint_name or "best"
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
    config = load_routing_config(checkpoint)
    return SavedMixture(checkpoint, SavedConfig.of(config, checkpoint / "config.json"))


def published_mixture(run: Path, name: str, published: dict) -> SavedMixture:
    """Returns the checkpoint `name` in a run of the published code, whose config.json is `published`.

    Raises InputError if it is missing or its configuration is broken.
    """
    if not (run / name / "model.pt").is_file():
        there = ", ".join(sorted(path.parent.name for path in run.glob("*/model.pt"))) or "none"
        raise InputError(f"{run / name / 'model.pt'}: not found; checkpoints there: {there}")
    names, vectors_ND = load_task_vectors(run / name)
    path = run / "config.json"
    try:
        fields = published_fields(published, names, vectors_ND.shape[1])
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a valid configuration ({in_brief(error)})") from None
    config = SavedConfig.of(fields, path)
    return SavedMixture(run / name, config, is_published=True)


def no_checkpoint(folder: Path, name: str, name_flag: str) -> str:
    """Returns the message for a folder without config.json, both in it and in its subfolder `name`."""
    if (folder / "model.pt").is_file():
        return f"{folder} has no config.json; for a run of the published code, give its parent folder"
    there = ", ".join(sorted(path.parent.name for path in folder.glob("*/config.json")))
    if there:
        return f"{folder} has no checkpoint {name!r}; choose one with --{name_flag}: {there}"
    return f"{folder} is neither a run, with {name}/config.json, nor a checkpoint, with config.json"


def weight_files(source: str | Path) -> list[Path]:
    """Returns the files with a model's weights. source: a file, a folder or a hub name.

    Raises InputError if a hub name cannot be downloaded.
    """
    if Path(source).is_file():
        return [Path(source)]
    path = local_folder(source)
    return sorted(path.glob("model*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))


def checksums(weights: list[Path], place: str | Path) -> dict[str, str]:
    """Returns {name: SHA-256} of weight files, and of the configuration and tokenizer files in `place`.

    place: a folder or hub name. Raises InputError if a hub name cannot be downloaded.
    """
    files, folder = {file.name: file for file in weights}, local_folder(place)
    files |= {name: folder / name for name in ("config.json", *TOKENIZER_FILES)}
    return {name: sha256(file) for name, file in files.items() if file.is_file()}


def same_files(saved: dict[str, str] | None, now: dict[str, str]) -> bool:
    """Returns whether checksums of a start, saved by an earlier command, are those of the start now.

    Of a hub name, earlier versions saved only those of weights that were in the cache already.
    """
    if not saved or "config.json" in saved:
        return saved in (now, {}, None)
    return all(now.get(name) == checksum for name, checksum in saved.items())


def checkpoint_to_resume(settings: TrainSettings) -> Path | None:
    """Returns the run's last checkpoint if the run resumes and has one, else None."""
    resumes = settings.do_train and settings.resume
    return find_checkpoint(Path(settings.output_dir) / "last") if resumes else None


def checkpoint_to_start_from(settings: TrainSettings) -> Path | None:
    """Returns the checkpoint folder that the flags name.

    None if it is missing or the start is a plain BART.
    """
    if last := checkpoint_to_resume(settings):
        return last
    if settings.do_train and settings.initialize_from_vanilla:
        return None
    if settings.checkpoint:
        return find_checkpoint(folder_of_run(settings.checkpoint))
    return find_checkpoint(Path(settings.output_dir) / settings.checkpoint_name)


def mixture_to_score(settings: TrainSettings) -> SavedMixture:
    """Returns the checkpoint of a prediction. Raises InputError if there is no valid one."""
    if settings.checkpoint:
        return find_mixture(settings.checkpoint, None, "checkpoint_name")
    return find_mixture(settings.output_dir, settings.checkpoint_name, "checkpoint_name")


@dataclass(frozen=True)
class SavedBart:
    """A plain BART: a folder or hub name, and optionally a file of weights that replaces its own.

    kept: the content of that file if it was read before it is needed; the next `load` takes it.
    """

    source: str
    weights: str | None = None
    kept: list = field(default_factory=list, compare=False, repr=False)

    def load(self) -> "RoutingBartForConditionalGeneration":
        """Returns the BART as a routing BART with one expert. Raises InputError if its files are broken."""
        from routing_moe.checkpoints.vanilla import load_vanilla_weights  # imports torch, which takes seconds
        from routing_moe.model.modeling import RoutingBartForConditionalGeneration

        model = RoutingBartForConditionalGeneration.from_bart(self.source, 1, 0.0)
        if self.weights:
            content = self.kept.pop() if self.kept else None
            load_vanilla_weights(model, self.weights, 0.0, flag="checkpoint", content=content)
        return model

    def files(self) -> list[Path]:
        """Returns the files that contain the weights."""
        return weight_files(self.weights or self.source)

    def checksums(self) -> dict[str, str]:
        """Returns {name: SHA-256} of the files that determine the model's output."""
        return checksums(self.files(), self.source)


def find_start(settings: FinetuneSettings) -> SavedMixture | SavedBart:
    """Returns the model that --moe_init and --init_dir, --checkpoint or --model name. Raises InputError."""
    if settings.moe_init:
        with fault_context("--init_dir "):
            found = find_mixture(settings.init_dir, settings.init_checkpoint_name, "init_checkpoint_name")
            if found.config.num_experts == 1:
                raise InputError(f"{found.checkpoint} has one expert, a plain BART; give it as --checkpoint")
            return found
    if settings.checkpoint is None:
        return SavedBart(settings.model)
    with fault_context("--checkpoint "):
        return find_plain(settings.checkpoint, settings.model)


def find_plain(checkpoint: str, model: str) -> SavedMixture | SavedBart:
    """Returns a plain BART: a file of weights, a saved BART, a hub name, or a run with one expert.

    model: --model, the BART whose weights a file replaces. Raises InputError for anything else.
    """
    path = Path(checkpoint)
    if path.is_file():
        return plain_file(path, model)
    if not path.is_dir() and not is_hub_name(checkpoint):
        raise InputError(f"{checkpoint}: not found; name a file of weights, a folder or a hub name")
    found = find_saved(checkpoint)
    if isinstance(found, SavedBart):
        return found
    if found.config.num_experts > 1:
        raise InputError(
            f"{found.checkpoint} is a mixture of {found.config.num_experts} experts; start from it with "
            f"--moe_init --init_dir {checkpoint}"
        )
    return found


def plain_file(path: Path, model: str) -> SavedBart:
    """Returns the BART `model` with a file's weights. Raises InputError for a file of a run's checkpoint."""
    config = path.parent / "config.json"
    model_type = config.is_file() and load_json_object(config, "a configuration").get("model_type")
    if model_type == ROUTING_BART:
        raise InputError(f"{path}: a file of a run's checkpoint; name its folder, {path.parent}")
    return SavedBart(model, weights=str(path))


def find_vanilla(place: str) -> SavedMixture | SavedBart:
    """Returns the plain BART of --vanilla_checkpoint: a file of weights, a folder, or a run with one expert.

    place: also a hub name of such a folder or run. Raises InputError for anything else.
    """
    if Path(place).is_file():
        return plain_file(Path(place), place)
    path = _configured(place)
    if not path.is_dir():
        raise InputError(f"{place}: not found")
    config = path / "config.json"
    if config.is_file() and load_json_object(config, "a configuration").get("model_type") != ROUTING_BART:
        return SavedBart(place)
    found = find_mixture(place, None, f"vanilla_checkpoint {place}/NAME")
    if found.config.num_experts > 1:
        raise InputError(
            f"{found.checkpoint} is a mixture of {found.config.num_experts} experts; give a plain BART, or a "
            "run with one expert"
        )
    return found


def find_saved(place: str, name_flag: str = "checkpoint") -> SavedMixture | SavedBart:
    """Returns a saved plain BART, a hub name, or a run or checkpoint with any number of experts.

    name_flag: the flag that names a checkpoint of a run. Raises InputError for anything else.
    """
    path = _configured(place)
    if not path.is_dir():
        if is_hub_name(place):
            return SavedBart(place)
        raise InputError(f"{place}: not found; name a folder or a hub name")
    config = path / "config.json"
    fields = load_json_object(config, "a model's configuration") if config.is_file() else {}
    kind = fields.get("model_type")
    is_published = "router_block_num" in fields
    if (is_on_hub(place) and kind != ROUTING_BART) or (kind == "bart" and not is_published):
        return SavedBart(place)
    return find_mixture(place, None, name_flag)


def _configured(place: str) -> Path:
    """Returns a path itself, or the folder of a hub name, which has its configuration."""
    return snapshot(place).folder if is_on_hub(place) else Path(place)
