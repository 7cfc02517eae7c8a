"""Finds a trained model on disk, of this or the published code, without loading it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dataloader.checksums import sha256
from dataloader.errors import InputError, problem_context
from dataloader.jsonfile import load_json_object
from routing_moe.checkpoints.folder import find_checkpoint
from routing_moe.config.choices import ROUTING_BART
from routing_moe.config.shared import Start
from routing_moe.config.train import TrainSettings
from routing_moe.io.hub import TOKENIZER_FILES, folder_of_run, is_hub_name, is_on_hub, local_folder
from routing_moe.model.task_vectors import VECTORS_FILE

if TYPE_CHECKING:
    from routing_moe.model.configuration import RoutingBartConfig
    from routing_moe.model.modeling import RoutingBartForConditionalGeneration


@dataclass(frozen=True)
class SavedMixture:
    """A checkpoint of a routing BART that was found but is not loaded yet."""

    checkpoint: Path
    is_published: bool = False

    @property
    def place(self) -> Path:
        return self.checkpoint

    @cached_property
    def config(self) -> "RoutingBartConfig":
        from routing_moe.model.configuration import RoutingBartConfig
        from routing_moe.model.published import published_config

        if self.is_published:
            return published_config(self.checkpoint.parent, self.checkpoint.name)
        return RoutingBartConfig.load(self.checkpoint)

    def load(self) -> "RoutingBartForConditionalGeneration":
        from routing_moe.model.loading import load_routing_bart
        from routing_moe.model.modeling import RoutingBartForConditionalGeneration

        cls = RoutingBartForConditionalGeneration
        if self.is_published:
            return cls.from_upstream(self.checkpoint.parent, self.checkpoint.name)
        return load_routing_bart(cls, self.checkpoint)

    def files(self) -> list[Path]:
        if self.is_published:
            return [self.checkpoint / "model.pt", self.checkpoint / VECTORS_FILE]
        return weight_files(self.checkpoint)

    def checksums(self) -> dict[str, str]:
        return checksums(self.files(), self.checkpoint)


@dataclass(frozen=True)
class SavedBart:
    """A plain BART: a folder or hub name, and optionally a file of weights that replaces its own."""

    source: str
    weights: str | None = None

    @property
    def place(self) -> str:
        return self.source

    @cached_property
    def config(self) -> "RoutingBartConfig":
        """That of a routing BART with one expert."""
        from routing_moe.model.loading import load_bart_config

        return load_bart_config(self.source)

    def load(self) -> "RoutingBartForConditionalGeneration":
        """Returns the BART as a routing BART with one expert."""
        from routing_moe.model.conversion import load_plain_weights
        from routing_moe.model.loading import load_vanilla_checkpoint
        from routing_moe.model.modeling import RoutingBartForConditionalGeneration

        model = RoutingBartForConditionalGeneration.from_bart(self.source, 1, 0.0)
        if self.weights:
            content = load_vanilla_checkpoint(self.weights)
            with problem_context(f"{self.weights}: "):
                load_plain_weights(model, content, init_eps=0.0)
        return model

    def files(self) -> list[Path]:
        return weight_files(self.weights or self.source)

    def checksums(self) -> dict[str, str]:
        return checksums(self.files(), self.source)


def find_model(
    source: str | Path, checkpoint_name: str | None = None, name_flag: str = "checkpoint_name"
) -> SavedMixture | SavedBart:
    """Returns the model in a run (also of the published code), a saved folder, or of a hub name[@revision].

    checkpoint_name: that of a run, from the flag `name_flag`; None: "best". Raises InputError.
    """
    folder, name = Path(source), checkpoint_name or "best"
    if is_on_hub(source):
        if checkpoint_name:
            raise InputError(f"{source}: no such folder; of a run on the hub, leave --{name_flag} out")
        is_mixture = saved_fields(local_folder(source)).get("model_type") == ROUTING_BART
        return SavedMixture(folder_of_run(source)) if is_mixture else SavedBart(str(source))
    if not folder.is_dir():
        if is_hub_name(str(source)):
            return SavedBart(str(source))
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
        if not (folder / name / "model.pt").is_file():
            names = ", ".join(sorted(path.parent.name for path in folder.glob("*/model.pt"))) or "none"
            raise InputError(f"{folder / name / 'model.pt'}: not found; checkpoints there: {names}")
        return SavedMixture(folder / name, is_published=True)
    if checkpoint_name:
        raise InputError(f"{folder} is a checkpoint; --{name_flag} has an effect with run folders only")
    kind = saved.get("model_type")
    if kind not in (ROUTING_BART, "bart"):
        raise InputError(f"{folder} holds a {kind!r} model, not a BART or a routing BART")
    return SavedMixture(folder) if kind == ROUTING_BART else SavedBart(str(source))


def find_mixture(source: str | Path, checkpoint_name: str | None, name_flag: str) -> SavedMixture:
    """Returns a routing BART; arguments as of `find_model`. Raises InputError if there is none."""
    if is_on_hub(source) and not checkpoint_name:
        source = folder_of_run(source)  # pickled weights of a run are not downloaded
    elif not Path(source).is_dir():
        raise InputError(f"{source}: no such folder, expected a run or a checkpoint")
    saved = find_model(source, checkpoint_name, name_flag)
    if isinstance(saved, SavedBart):
        raise InputError(f"{source} holds a 'bart' model, not a routing BART")
    return saved


def find_plain(source: str, model: str, name_flag: str = "checkpoint") -> SavedMixture | SavedBart:
    """Returns a plain BART: a file of weights for `model`, a saved BART, a hub name, or a run.

    `check_one_expert` checks a run's experts. Raises InputError.
    """
    path = Path(source)
    if path.is_file():
        if saved_fields(path.parent).get("model_type") == ROUTING_BART:
            raise InputError(f"{path}: a file of a run's checkpoint; name its folder, {path.parent}")
        return SavedBart(model, weights=source)
    if path.suffix in (".pt", ".bin", ".safetensors") and not path.is_dir():
        raise InputError(f"{source}: not found; name a file of weights, a folder or a hub name")
    return find_model(source, name_flag=name_flag)


def find_vanilla(source: str) -> SavedMixture | SavedBart:
    """Returns the plain BART of --vanilla_checkpoint, as `find_plain`."""
    return find_plain(source, source, f"vanilla_checkpoint {source}/NAME")


def find_bart(source: str) -> SavedBart:
    """Returns the plain BART in a folder or of a hub name, which is looked up when it is read."""
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        raise InputError(f"{source} has no config.json, the configuration of a model")
    if not Path(source).is_dir() and not is_hub_name(source):
        raise InputError(f"{source}: no such folder (nor a hub name such as facebook/bart-base)")
    return SavedBart(source)


def check_one_expert(start: SavedMixture | SavedBart, instead: str) -> None:
    """Raises InputError for a mixture where a plain BART is needed. instead: what to give."""
    if start.config.num_experts > 1:
        raise InputError(f"{start.checkpoint} is a mixture of {start.config.num_experts} experts; {instead}")


# ---- where runs start


def find_start(start: Start, moe_init: bool) -> SavedMixture | SavedBart:
    """Returns the model that fine-tuning starts from, a mixture with `moe_init`. Raises InputError."""
    with problem_context(f"--{start_flag(start, moe_init)} "):
        if moe_init:
            return find_mixture(start.checkpoint, start.checkpoint_name, "init_checkpoint_name")
        return find_plain(start.checkpoint, start.model) if start.checkpoint else find_bart(start.model)


def start_flag(start: Start, moe_init: bool) -> str:
    """Returns the name of the flag that names the model of `find_start`."""
    return "init_dir" if moe_init else "checkpoint" if start.checkpoint else "model"


def mixture_to_score(start: Start) -> SavedMixture:
    """Returns the checkpoint of a prediction. Raises InputError if there is no valid one."""
    return find_mixture(start.checkpoint, start.checkpoint_name, "checkpoint_name")


def checkpoint_to_resume(settings: TrainSettings) -> Path | None:
    """Returns the run's last checkpoint if the run resumes and has one, else None."""
    resumes = settings.do_train and settings.resume
    return find_checkpoint(Path(settings.output_dir) / "last") if resumes else None


def checkpoint_to_start_from(settings: TrainSettings) -> Path | None:
    """Returns the checkpoint folder that a run starts from; None if it is missing, or for a plain BART."""
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


def checksums(weights: list[Path], source: str | Path) -> dict[str, str]:
    """Returns {name: SHA-256} of weight files, and of configuration and tokenizer in a folder or hub name."""
    files, folder = {file.name: file for file in weights}, local_folder(source)
    files |= {name: folder / name for name in ("config.json", *TOKENIZER_FILES)}
    return {name: sha256(file) for name, file in files.items() if file.is_file()}
