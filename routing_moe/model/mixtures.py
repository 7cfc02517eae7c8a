"""Reads plain models and makes mixtures of their experts: a routing BART of layers, else a `RoutedModel`."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, BartForConditionalGeneration, PreTrainedModel

from dataloader.errors import InputError, problem_context
from dataloader.jsonfile import load_json_object
from routing_moe.config.choices import DECODER_ONLY, PLAIN_MODELS, ROUTING_BART
from routing_moe.io.hub import NotAvailable, local_folder
from routing_moe.model.base import ROUTING_NAMES, fill_plain
from routing_moe.model.configuration import Mixture, RoutingBartConfig, RoutingConfig
from routing_moe.model.conversion import load_plain_weights
from routing_moe.model.loading import load_backbone, load_checked, load_vanilla_checkpoint
from routing_moe.model.modeling import RoutingBartForConditionalGeneration
from routing_moe.model.routed_model import RoutedModel

IN_ONE_TENSOR = "the experts of its layers are one tensor, in which low-rank updates have no place"
MIXTURES_OF_TOKENS = ("granitemoe", "mixtral", "olmoe", "phimoe", "qwen2_moe", "qwen3_moe")
WHY_REFUSED = {  # what users may ask for
    "marian": "inputs and answers have different tokens; RoutedModel takes it, in Python",
    "gpt2": "its layers have Conv1D, not nn.Linear",
    "gemma3": "it reads images; of Gemma 3, those of texts are gemma3_text, such as its 270M and 1B",
    **dict.fromkeys(MIXTURES_OF_TOKENS, IN_ONE_TENSOR),
}
# In the configurations of plain models of `export` and grids.
OF_THIS_PROJECT = ("text_settings", "task_names", "input_templates", "trained_tasks", "weights_seen")


def plain_config(source: str | Path, low_rank: bool = False) -> Mixture:
    """Returns the configuration, with one expert, of the plain model in a folder or of a hub name.

    low_rank: whether it is to get low-rank experts, which makes a difference for a BART only.
    """
    try:
        path = local_folder(source) / "config.json"
    except NotAvailable as error:
        small = "for a trial there is a small BART in task/conflict_gym/tiny_bart"
        raise InputError(f"{error}; {small}") from None
    values = load_json_object(path, "a model's configuration")
    if (kind := values.get("model_type")) not in PLAIN_MODELS:
        why = f" ({WHY_REFUSED[kind]})" if kind in WHY_REFUSED else ""
        known = ", ".join(PLAIN_MODELS)
        raise InputError(f"{source} is a {kind!r} model{why}; the commands take models of the types {known}")
    how = values.get("quantization_config")
    if how and (kind not in DECODER_ONLY or not how.get("load_in_4bit")):
        raise InputError(
            f"{source} has weights quantized by {how.get('quant_method')}; of quantized models, the commands "
            "take decoder-only ones in 4 bits of bitsandbytes (load_in_4bit)"
        )
    if kind == "bart" and not low_rank:
        return RoutingBartConfig.of(values | {"num_experts": 1}, path)
    with problem_context(f"{path}: "):
        backbone = AutoConfig.for_model(**values)
    fields = {name: values[name] for name in OF_THIS_PROJECT if values.get(name)}
    return RoutingConfig.of(dict(backbone=backbone, expert_kind="layer", num_experts=1) | fields, path)


def load_plain(source: str | Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Returns the plain model in a folder or of a hub name. Raises InputError."""
    plain_config(source)
    return load_backbone(source, dtype=dtype)


def mixture_of(plain: PreTrainedModel, num_experts: int = 1, init_eps: float = 0.0, **fields):
    """Returns a mixture of a plain model's experts; with low-rank ones it becomes a part of the mixture.

    init_eps: the standard deviation of the noise of experts that are complete layers.
    """
    if isinstance(plain, BartForConditionalGeneration) and fields.get("expert_kind") != "lora":
        return RoutingBartForConditionalGeneration.from_bart(plain, num_experts, init_eps, **fields)
    if num_experts == 1:
        fields = {"expert_kind": "layer"} | fields
    return RoutedModel.from_backbone(plain, num_experts, **fields)


def routes_of_experts(mixture) -> Tensor:
    """Returns the routes (E, L, E) of each expert alone, in all layers."""
    one_hot_EE = torch.eye(mixture.config.num_experts, device=mixture.device)
    return one_hot_EE[:, None].repeat(1, mixture.config.num_layers, 1)


def weights_of_experts(mixture) -> list[dict[str, Tensor]]:
    """Returns {name in its plain model: weight} of each expert, without the weights that experts share."""
    routes_ELE = routes_of_experts(mixture)
    states = [mixture.to_plain(route_LE, dtype=torch.float32).state_dict() for route_LE in routes_ELE]
    first, second, *_ = states
    own = [name for name, tensor in first.items() if tensor.data_ptr() != second[name].data_ptr()]
    return [{name: state[name] for name in own} for state in states]


def load_mixture(checkpoint: str | Path):
    """Returns the mixture saved in a folder, in float32, or in the precision of its base."""
    if isinstance(Mixture.load(Path(checkpoint)), RoutingBartConfig):
        options = dict(dtype=torch.float32, output_loading_info=True)
        load = partial(RoutingBartForConditionalGeneration.from_pretrained, checkpoint, **options)
        return load_checked(load, checkpoint, "not a valid checkpoint of a routing BART")[0]
    with problem_context(f"{checkpoint}: "):
        return RoutedModel.from_pretrained(checkpoint)


@torch.no_grad()
def load_base_weights(model, source: dict[str, torch.Tensor], init_eps: float) -> None:
    """Copies a plain model's state dict into each expert of a mixture, or the base of low-rank ones."""
    if model.config.model_type == ROUTING_BART:
        return load_plain_weights(model, source, init_eps)
    fill_plain(model.backbone, source)


def with_fresh_experts(model, plain: PreTrainedModel, init_eps: float):
    """Returns a new model with the router and vectors, or fixed routes, of `model`, for the second stage.

    The experts are new ones of a plain model with the same numbers of layers; its width may differ.
    """
    fields = model.config.mixture_fields() | {"base_model": None, "base_sha256": None}
    fresh = mixture_of(plain, init_eps=init_eps, **fields)
    routing = {name: t for name, t in model.state_dict().items() if name.startswith(ROUTING_NAMES)}
    fresh.load_state_dict(routing, strict=False)
    return fresh


def read_plain_weights(source: str | Path) -> dict[str, torch.Tensor]:
    """Returns the state dict of a plain model's folder or hub name, or of a file of a BART's weights."""
    is_file = Path(source).is_file()
    return load_vanilla_checkpoint(source) if is_file else load_plain(local_folder(source)).state_dict()
