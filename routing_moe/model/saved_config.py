"""Reads and checks the configurations of saved models without torch, which takes seconds to import."""

from dataclasses import dataclass, fields
from pathlib import Path

from huggingface_hub.dataclasses import strict

from dataloader.errors import InputError, in_brief
from dataloader.jsonfile import load_json_object
from routing_moe.io.hub import NotAvailable, in_cache, is_hub_name, snapshot
from routing_moe.model.mixture_fields import MixtureFields
from routing_moe.model.task_vectors import NAMES_FILE, read_names

ROUTING_BART = "routing_bart"  # the model_type of a mixture
SMALL_BART = "task/skill_gym/tiny_bart"
FOR_A_TRIAL = f"for a trial there is a small BART: --model {SMALL_BART} (scripts: MODEL={SMALL_BART})"
# Names of other models' configurations, which transformers accepts in place of BART's.
ALIASES = {
    "num_hidden_layers": "encoder_layers",
    "hidden_size": "d_model",
    "num_attention_heads": "encoder_attention_heads",
}


@strict
@dataclass
class SavedConfig(MixtureFields):
    """A config.json of a BART or a mixture: the fields that commands check before they import torch.

    Types and defaults are those of `transformers.BartConfig`, which saves only values that differ from them.
    None is accepted only where a model can be made of it.
    """

    model_type: str = ""
    vocab_size: int = 50265
    max_position_embeddings: int = 1024
    encoder_layers: int = 12
    encoder_ffn_dim: int = 4096
    encoder_attention_heads: int = 16
    decoder_layers: int = 12
    decoder_ffn_dim: int = 4096
    decoder_attention_heads: int = 16
    encoder_layerdrop: float = 0.0
    decoder_layerdrop: float = 0.0
    activation_function: str = "gelu"
    d_model: int = 1024
    dropout: float | int = 0.1
    attention_dropout: float | int = 0.0
    activation_dropout: float | int = 0.0
    init_std: float = 0.02
    classifier_dropout: float | int | None = 0.0
    scale_embedding: bool | None = False
    use_cache: bool = True
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    is_encoder_decoder: bool | None = True
    decoder_start_token_id: int | None = 2
    forced_eos_token_id: int | list[int] | None = 2
    is_decoder: bool | None = False
    tie_word_embeddings: bool = True

    @classmethod
    def of(cls, values: dict, path: str | Path) -> "SavedConfig":
        """Returns the configuration with the values of a config.json; other fields are ignored.

        Raises InputError that names the path.
        """
        known = {field.name for field in fields(cls)}
        named = {ALIASES.get(name, name): value for name, value in values.items()}
        try:
            return cls(**{name: value for name, value in named.items() if name in known})
        except Exception as error:  # `strict` wraps the error that __post_init__ raised
            reason = in_brief(error.__cause__ or error)
            raise InputError(f"{path}: not a valid configuration ({reason})") from None

    @classmethod
    def load(cls, path: Path) -> "SavedConfig":
        """Returns the configuration in a config.json. Raises InputError that names the file."""
        return cls.of(load_json_object(path, "a model's configuration"), path)


def load_bart_config(source: str | Path, ask_hub: bool = True) -> SavedConfig | None:
    """Returns the configuration of the plain BART from a folder or hub name.

    ask_hub: whether a hub name that is not in the local cache is looked up; otherwise the result is None, so
    that commands with other errors need not wait for the network. Raises InputError that names the source.
    """
    path = Path(source)
    if path.is_dir():
        config = SavedConfig.load(path / "config.json")
    elif is_hub_name(str(source)):
        try:
            found = snapshot(str(source)) if ask_hub else in_cache(str(source))
        except NotAvailable as error:
            raise InputError(f"{error}; {FOR_A_TRIAL}") from None
        if found is None:
            return None
        config = SavedConfig.load(found.folder / "config.json")
    else:
        raise InputError(f"{source}: no such folder (nor a hub name such as facebook/bart-base)")
    if config.model_type != "bart":
        raise InputError(
            f"{source} is a {config.model_type!r} model; experts can only be made from a 'bart' model"
        )
    if not 0 <= config.init_std < float("inf"):
        raise InputError(f"{source}: config.json has init_std {config.init_std!r}; it must be 0 or greater")
    return config


def load_routing_config(checkpoint: str | Path) -> dict:
    """Returns the fields in the config.json of a saved routing BART. Raises InputError that names it."""
    checkpoint = Path(checkpoint)
    config = load_json_object(checkpoint / "config.json", "a model's configuration")
    if config.get("model_type") != ROUTING_BART:
        raise InputError(f"{checkpoint} holds a {config.get('model_type')!r} model, not a routing BART")
    for field in ("task_names", "random_vectors", "trained_tasks"):
        names = config.get(field) or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{checkpoint / 'config.json'}: {field} is not a list of task names")
    names_file = checkpoint / NAMES_FILE
    if names_file.is_file() and read_names(names_file) != (config.get("task_names") or []):
        raise InputError(
            f"{checkpoint / 'config.json'}: task_names differ from those in {NAMES_FILE} of the same folder"
        )
    SavedConfig.of(config, checkpoint / "config.json")
    return config


def published_fields(published: dict, task_names: list[str], vector_dim: int) -> dict:
    """Returns the fields of a RoutingBartConfig from a config.json of the published code.

    The published code writes vanilla layers as text, separated by commas.
    """
    ours = {k: v for k, v in published.items() if not k.startswith("router_") and k != "model_type"}
    for side in ("encoder", "decoder"):
        layers = published.get(f"{side}_vanilla_layers") or ""
        ours[f"{side}_vanilla_layers"] = (
            [int(i) for i in layers.split(",") if i.strip()] if isinstance(layers, str) else layers
        )
    ours |= {
        k: published[k] for k in ("router_nn_type", "router_mode", "router_hidden_dim") if k in published
    }
    ours |= {"num_experts": published["router_block_num"], "router_input_dim": vector_dim}
    return ours | {"task_names": task_names}
