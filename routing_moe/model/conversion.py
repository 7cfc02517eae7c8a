"""Converts a plain BART to experts (upcycling) and a route of experts to its equivalent plain BART."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import BartConfig, BartForConditionalGeneration
from transformers import initialization as init

from dataloader.errors import InputError
from routing_moe.model.base import empty, fill_plain, is_of_base, refer_to_base, train_base
from routing_moe.model.configuration import MIXTURE_FIELDS, RoutingBartConfig, RoutingConfig, check_fields
from routing_moe.model.loading import load_backbone, unfilled_model
from routing_moe.model.projection import project_in_float32
from routing_moe.model.routed_layer import RoutedLayer
from routing_moe.model.routed_model import RoutedModel

# Fields of a plain BART's configuration that are not those of its mixture.
NOT_OF_SIZE = ("model_type", "architectures", "trained_tasks", "weights_seen")

# ---- plain BART -> experts


def from_bart(cls, bart, num_experts: int, init_eps: float, **config_fields):
    """Returns a routing BART whose experts are copies of a BART's layers plus N(0, init_eps) noise.

    bart: a name or path, or a `BartForConditionalGeneration`, which is not changed. A single expert has no
    noise. It is drawn from torch's global generator in the published order (encoder layers, experts,
    parameters; then decoder). At 1e-8 it is below the resolution of float32 for weights near 1. With
    expert_kind="lora", returns a `RoutedModel` of a copy of the BART, which is trained, too.
    """
    place = None
    check_fields(config_fields, RoutingBartConfig)
    if not isinstance(bart, nn.Module):
        place, bart = bart, load_backbone(bart, dtype=torch.float32)
    fields = {name: value for name, value in bart.config.to_dict().items() if name not in NOT_OF_SIZE}
    # The reference to a base is that of another model.
    fields |= {"num_experts": num_experts, **config_fields, "base_model": None, "base_sha256": None}
    if fields.get("expert_kind") == "lora":
        of_mixture = {name: fields.pop(name) for name in MIXTURE_FIELDS & fields.keys()}
        config = RoutingConfig(**of_mixture, backbone=BartConfig(**fields))
        model = RoutedModel.with_backbone(config, fill_plain(empty(config.backbone), bart.state_dict()))
        train_base(model, True)
        if place is not None:
            refer_to_base(model, place)
    else:
        model = unfilled_model(cls, RoutingBartConfig(**fields))
        load_plain_weights(model, bart.state_dict(), init_eps)
    model.config.note_seen(getattr(bart.config, "weights_seen", None))
    model.generation_config = bart.generation_config
    return model


@torch.no_grad()
def load_plain_weights(model, plain: Mapping[str, Tensor], init_eps: float) -> None:
    """Copies a BART's state dict into experts (plus N(0, init_eps) noise), vanilla layers and embeddings."""
    bart = fill_plain(empty(model.config.to_bart_config()), plain)
    if model.config.tie_word_embeddings and bart.lm_head.weight is not bart.model.shared.weight:
        raise InputError(
            "lm_head.weight of the BART differs from its embeddings, though its configuration ties them; set "
            '"tie_word_embeddings": false'
        )
    model.load_state_dict({n: t for n, t in bart.state_dict().items() if ".layers." not in n}, strict=False)
    ours, copied = ([*m.encoder.layers, *m.decoder.layers] for m in (model.model, bart.model))
    for layer, stock in zip(ours, copied, strict=True):
        for expert in layer.experts if isinstance(layer, RoutedLayer) else [layer]:
            expert.load_state_dict(stock.state_dict())
            if isinstance(layer, RoutedLayer) and len(layer.experts) > 1:
                for parameter in expert.parameters():
                    parameter.add_(torch.randn(parameter.shape).to(parameter).mul_(init_eps))


# ---- experts -> plain BART


@torch.no_grad()
def assemble_bart(model, routes_LE: Tensor) -> BartForConditionalGeneration:
    """Returns the equivalent plain BART of a route (L, E); rows of vanilla layers are ignored.

    If outputs are mixed, each layer is its argmax expert, and all parameters are shared with `model`; else
    layers are merged by their rows. A call with the same tensors as the last one returns the same BART.
    """
    state = _tensors_along(model, routes_LE)
    bart, made_of = getattr(model, "last_plain", (None, {}))
    attention = model.config._attn_implementation
    is_known = state.keys() == made_of.keys() and all(state[name] is made_of[name] for name in state)
    if not is_known or bart.config._attn_implementation != attention:
        config = model.config.to_bart_config()
        config._attn_implementation = attention
        with torch.device("meta"), init.no_init_weights():
            bart = BartForConditionalGeneration(config)
        project_in_float32(bart)
        # Torch would set `requires_grad` to that on the meta device, and so change the tensors of `model`.
        requires_grad = {name: tensor.requires_grad for name, tensor in state.items()}
        bart.load_state_dict(state, assign=True)
        for name, tensor in state.items():
            tensor.requires_grad_(requires_grad[name])
        bart.tie_weights()
        if not model.config.has_plain_routes:  # merged tensors are new at every call
            model.last_plain = bart, state  # a tuple, so that torch does not see a part of the model
    bart.generation_config = model.generation_config
    return bart.train(model.training)


def _tensors_along(model, routes_LE: Tensor) -> dict[str, Tensor]:
    """Returns the state dict of the plain BART of a route (L, E)."""
    choices, encoder_layers = routes_LE.argmax(dim=-1).tolist(), model.config.encoder_layers
    routes_LE = routes_LE.to(model.device)
    state = {
        name: tensor
        for name, tensor in model.state_dict(keep_vars=True).items()
        if is_of_base(name) and ".experts." not in name
    }
    for layer in model.routed_layers():
        if model.config.expert_mixing == "parameters":
            (weights,) = layer.merged_parameters(routes_LE[layer.row, None])
        else:
            weights = layer.experts[choices[layer.row]].state_dict(keep_vars=True)
        i = layer.row - encoder_layers
        place = f"model.encoder.layers.{layer.row}" if i < 0 else f"model.decoder.layers.{i}"
        state |= {f"{place}.{name}": tensor for name, tensor in weights.items()}
    return state


def with_shared_parameters(model):
    """Returns a copy of the model with the same parameters, not copied, whose routes may be changed."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
