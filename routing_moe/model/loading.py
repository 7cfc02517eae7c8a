"""Loads plain models and routing BARTs from folders, files, hub names, with errors that name the source."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.initialization import no_init_weights

from dataloader.errors import InputError, in_brief, in_short
from dataloader.jsonfile import load_json_object
from routing_moe.config.choices import MIXTURES, ROUTERS, is_of_user
from routing_moe.io.hub import local_folder


def load_checked(load: Callable[[], tuple], source: str | Path, problem: str) -> tuple:
    """Returns (model, report) of `load`, a call of transformers. problem: what is wrong if it raises."""
    try:
        model, report = load()
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    except SafetensorError as error:
        raise damaged(source, error) from None
    except Exception as error:  # transformers raises many types of errors
        raise InputError(f"{source}: {problem} ({in_brief(error)})") from None
    if missing := sorted(report["missing_keys"]):  # which the library fills with random numbers
        raise InputError(f"{source}: its files lack {len(missing)} weights, such as {missing[0]}")
    check_finite(own_tensors(model), source)
    # Tensors of safetensors may not be aligned in memory, and matrix products may then round differently: a
    # resumed run would not be bit-identical.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model, report


def damaged(source: str | Path, error: SafetensorError) -> InputError:
    """Returns the error of a damaged file of weights, which is the source or in it."""
    files = sorted(Path(source).glob("*.safetensors"))
    advice = "restore it, or name another"
    if "last" in (Path(source).name, Path(source).parent.name):  # of a run that may be resumed
        advice += " checkpoint; without the folder last, --resume starts again"
    return InputError(f"{files[0] if len(files) == 1 else source} is damaged ({in_brief(error)}); {advice}")


def saved_kind(folder: Path) -> str | None:
    """Returns the model_type in the configuration of a folder."""
    return load_json_object(folder / "config.json", "a model's configuration").get("model_type")


def auto_class(config) -> type:
    """Returns the class of transformers that makes and loads models of a plain configuration."""
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def load_backbone(
    source: str | Path,
    config: PreTrainedConfig | None = None,
    dtype: str | torch.dtype = "auto",
    attn_implementation: str | None = None,
) -> PreTrainedModel:
    """Returns the plain model from a folder or hub name. config: what it must be; dtype "auto": as saved."""
    folder = local_folder(source)
    if saved_kind(folder) in MIXTURES:
        raise InputError(f"{source} is a mixture of experts already; give a plain model")

    def load() -> tuple:
        known = config or AutoConfig.from_pretrained(folder)
        options = dict(config=known, dtype=dtype, attn_implementation=attn_implementation)
        return auto_class(known).from_pretrained(folder, **options, output_loading_info=True)

    model, report = load_checked(load, source, "no plain model can be loaded from there")
    if config is not None and (others := sorted(report["unexpected_keys"])):
        raise InputError(f"{source}: not the expected model; it has other weights, such as {others[0]}")
    return model


def is_quantized(config: PreTrainedConfig) -> bool:
    """Returns whether the linear maps of a plain model, or of the base of a mixture, are quantized."""
    return getattr(getattr(config, "backbone", config), "quantization_config", None) is not None


def check_not_quantized(config: PreTrainedConfig, instead: str) -> None:
    """Raises InputError for a base with quantized weights. instead: what is possible, or why not."""
    if is_quantized(config):
        raise InputError(f"the base has quantized weights: {instead}")


def check_finite(tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Raises InputError that names tensors that are not finite, and the file or folder they are from."""
    floats = {name: t.detach() for name, t in tensors.items() if t.is_floating_point() and t.numel()}
    # Minimum and maximum of a tensor with a NaN are NaN. isfinite() is 16 times slower on a CPU and uses more
    # memory.
    broken = {n: t for n, t in floats.items() if not all(math.isfinite(end) for end in t.aminmax())}
    if not broken:
        return
    files = sorted(Path(source).glob("*.safetensors")) or sorted(Path(source).glob("*.bin"))
    named = [f"{name} ({(~t.isfinite()).sum()} of {t.numel()} values)" for name, t in broken.items()]
    raise InputError(
        f"{files[0] if len(files) == 1 else source} has weights that are not finite: {in_short(named)}; the "
        "model has diverged, or the file is damaged: name another checkpoint"
    )


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Returns {name: tensor} of the saved parameters and buffers; tied ones once, under their first name."""
    tensors, saved = dict(model.named_parameters()) | dict(model.named_buffers()), model.state_dict()
    return {name: tensor for name, tensor in tensors.items() if name in saved}


def load_vanilla_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Returns the state dict in a plain model's .pt/.bin/.safetensors file; unpickles no object."""
    path = Path(path)
    try:
        is_safe = path.suffix == ".safetensors"
        state = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise TypeError("it is not a dictionary of tensors")
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    except Exception as error:  # each format raises its own types of errors
        raise InputError(f"{path}: not a checkpoint of a plain model ({in_brief(error)})") from None
    check_finite(state, path)
    # BARTs saved without a language-model head, as on the hub, have names without "model.".
    return {re.sub(r"^(?=(shared|encoder|decoder)\.)", "model.", name): t for name, t in state.items()}


def unfilled_model(cls, config, *parts):
    """Returns `cls(config, *parts)` with drawn router, vectors and low-rank experts; the rest is to load."""
    with no_init_weights():
        model = cls(config, *parts)
    # The library does this when it initialises. By the configuration alone it would tie what it read untied.
    model.tie_weights(recompute_mapping=False)
    if config.has_router and not is_of_user(ROUTERS[config.router_nn_type]):
        model.router.apply(model._init_weights)
    else:  # of a source or of the user; its own initialisation was skipped, too
        model.router = model.new_router()
    if model.task_vectors is not None:
        model.task_vectors.apply(model._init_weights)
    return model
