"""Finds a trained model on disk, of this or the published code, without loading it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dataloader.checksums import sha256
from dataloader.errors import InputError, problem_context
from dataloader.jsonfile import load_json_object
from routing_moe.checkpoints.folder import find_checkpoint
from routing_moe.config.choices import MIXTURES, PLAIN_MODELS
from routing_moe.config.shared import Start
from routing_moe.config.train import TrainSettings
from routing_moe.io.hub import (
    OTHER_TOKENIZERS,
    TOKENIZER_FILES,
    folder_of_run,
    is_hub_name,
    is_on_hub,
    local_folder,
)

if TYPE_CHECKING:
    from routing_moe.model.configuration import Mixture

FURTHER_FILES = ("config.json", "tokenizer_config.json", "chat_template.jinja")  # of a model


@dataclass(frozen=True)
class SavedMixture:
    """A checkpoint of a mixture that was found but is not loaded yet."""

    place: Path

    @cached_property
    def config(self) -> "Mixture":
        from routing_moe.model.configuration import Mixture

        return Mixture.load(self.place)

    def load(self):
        """Returns the mixture."""
        from routing_moe.model.mixtures import load_mixture

        return load_mixture(self.place)

    def files(self) -> list[Path]:
        return weight_files(self.place)


@dataclass(frozen=True)
class SavedPlain:
    """A plain model: a folder or hub name, and optionally a file of weights that replaces its own."""

    place: str
    weights: str | None = None

    @cached_property
    def config(self) -> "Mixture":
        """That of a mixture with one expert; how weights of a file were trained is unknown."""
        from routing_moe.model.mixtures import plain_config

        config = plain_config(self.place)
        config.text_settings = None if self.weights else config.text_settings
        return config

    def load(self):
        """Returns the model as a mixture with one expert."""
        from routing_moe.model import mixtures

        fields = {name: getattr(self.config, name) for name in mixtures.OF_THIS_PROJECT}
        model = mixtures.mixture_of(mixtures.load_plain(self.place), **fields)
        if self.weights:
            content = mixtures.read_plain_weights(self.weights)
            with problem_context(f"{self.weights}: "):
                mixtures.load_base_weights(model, content, init_eps=0.0)
        return model

    def files(self) -> list[Path]:
        return weight_files(self.weights or self.place)


def find_model(
    source: str | Path, checkpoint_name: str | None = None, name_flag: str = "checkpoint_name"
) -> SavedMixture | SavedPlain:
    """Returns the model in a run (also of the published code), a saved folder, or of a hub name[@revision].

    checkpoint_name: that of a run, from the flag `name_flag`; None: "best". Raises InputError.
    """
    folder, name = Path(source), checkpoint_name or "best"
    if is_on_hub(source):
        if checkpoint_name:
            raise InputError(f"{source}: no such folder; of a run on the hub, leave --{name_flag} out")
        is_mixture = saved_fields(local_folder(source)).get("model_type") in MIXTURES
        return SavedMixture(folder_of_run(source)) if is_mixture else SavedPlain(str(source))
    if not folder.is_dir():
        if is_hub_name(str(source)):
            return SavedPlain(str(source))
        raise InputError(f"{source}: not found; name a folder or a hub name")
    if not (folder / "config.json").is_file():
        if checkpoint := find_checkpoint(folder / name):
            return SavedMixture(checkpoint)
        if names := ", ".join(sorted(path.parent.name for path in folder.glob("*/config.json"))):
            raise InputError(f"{folder} has no checkpoint {name!r}; choose one with --{name_flag}: {names}")
        what = f"neither a run, with {name}/config.json, nor a checkpoint, with config.json"
        raise InputError(f"{folder} is {what}")
    saved = saved_fields(folder)
    if "router_block_num" in saved:
        from routing_moe.model.modeling import RoutingBartForConditionalGeneration
        from routing_moe.model.published import PublishedMixture

        return PublishedMixture(RoutingBartForConditionalGeneration, folder / name)
    if checkpoint_name:
        raise InputError(f"{folder} is a checkpoint; --{name_flag} has an effect with run folders only")
    if (kind := saved.get("model_type")) not in (*MIXTURES, *PLAIN_MODELS):
        known = ", ".join(PLAIN_MODELS)
        raise InputError(f"{folder} holds a {kind!r} model, not a mixture or a model of the types {known}")
    return SavedMixture(folder) if kind in MIXTURES else SavedPlain(str(source))


def find_mixture(source: str | Path, checkpoint_name: str | None, name_flag: str) -> SavedMixture:
    """Returns a mixture; arguments as of `find_model`. Raises InputError if there is none."""
    if is_on_hub(source) and not checkpoint_name:
        source = folder_of_run(source)  # pickled weights of a run are not downloaded
    elif not Path(source).is_dir():
        raise InputError(f"{source}: no such folder, expected a run or a checkpoint")
    saved = find_model(source, checkpoint_name, name_flag)
    if isinstance(saved, SavedPlain):
        raise InputError(f"{source} holds a plain model, not a mixture of experts")
    return saved


def find_plain(source: str, model: str, name_flag: str = "checkpoint") -> SavedMixture | SavedPlain:
    """Returns a plain model: a file of weights for `model`, a saved model, a hub name, or a run.

    `check_one_expert` checks a run's experts. Raises InputError.
    """
    path = Path(source)
    if path.is_file():
        if saved_fields(path.parent).get("model_type") in MIXTURES:
            raise InputError(f"{path}: a file of a run's checkpoint; name its folder, {path.parent}")
        return SavedPlain(model, weights=source)
    if path.suffix in (".pt", ".bin", ".safetensors") and not path.is_dir():
        raise InputError(f"{source}: not found; name a file of weights, a folder or a hub name")
    return find_model(source, name_flag=name_flag)


def find_vanilla(source: str, model: str | None = None) -> SavedMixture | SavedPlain:
    """Returns the plain model of --vanilla_checkpoint, as `find_plain`. model: None: `source`."""
    return find_plain(source, model or source, f"vanilla_checkpoint {source}/NAME")


def check_one_expert(start: SavedMixture | SavedPlain, instead: str) -> None:
    """Raises InputError for a mixture where a plain model is needed. instead: what to give."""
    if start.config.num_experts > 1:
        raise InputError(f"{start.place} is a mixture of {start.config.num_experts} experts; {instead}")


# ---- where runs start


def find_start(start: Start, moe_init: bool) -> SavedMixture | SavedPlain:
    """Returns the model that fine-tuning starts from, a mixture with `moe_init`. Raises InputError."""
    flag = "init_dir" if moe_init else "checkpoint" if start.checkpoint else "model"
    with problem_context(f"--{flag} "):
        if moe_init:
            return find_mixture(start.checkpoint, start.checkpoint_name, "init_checkpoint_name")
        return find_plain(start.checkpoint, start.model) if start.checkpoint else SavedPlain(start.model)


def mixture_to_score(start: Start) -> SavedMixture:
    """Returns the checkpoint of a prediction. Raises InputError if there is no valid one."""
    return find_mixture(start.checkpoint, start.checkpoint_name, "checkpoint_name")


def checkpoint_to_resume(settings: TrainSettings) -> Path | None:
    """Returns the run's last checkpoint if the run resumes and has one, else None."""
    resumes = settings.do_train and settings.resume
    return find_checkpoint(Path(settings.output_dir) / "last") if resumes else None


def checkpoint_to_start_from(settings: TrainSettings) -> Path | None:
    """Returns the checkpoint folder that a run starts from; None if it is missing, or for a plain model."""
    resumed, start = checkpoint_to_resume(settings), settings.start
    if resumed or start.checkpoint is None:
        return resumed
    if start.checkpoint_name:
        return find_checkpoint(Path(start.checkpoint, start.checkpoint_name))
    return find_checkpoint(folder_of_run(start.checkpoint))


# ---- its files


def saved_fields(folder: Path) -> dict:
    """Returns the fields of the configuration in a folder, {} if there is none. Raises InputError."""
    path = folder / "config.json"
    return load_json_object(path, "a model's configuration") if path.is_file() else {}


def weight_files(source: str | Path) -> list[Path]:
    """Returns the files with a model's weights. source: a file, a folder or a hub name."""
    if Path(source).is_file():
        return [Path(source)]
    folder = local_folder(source)
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def checksums(saved: SavedMixture | SavedPlain) -> dict[str, str]:
    """Returns {name: SHA-256} of the files of a model: weights, configuration, tokenizer, chat template."""
    files, folder = {file.name: file for file in saved.files()}, local_folder(saved.place)
    files |= {name: folder / name for name in (*FURTHER_FILES, *TOKENIZER_FILES)}
    files |= {file.name: file for pattern in OTHER_TOKENIZERS for file in folder.glob(pattern)}
    return {name: sha256(file) for name, file in files.items() if file.is_file()}
