"""Converts a plain BART to experts (upcycling) and a route of experts to its equivalent plain BART."""

import copy
import re

import torch
from torch import Tensor, nn
from transformers import BartForConditionalGeneration
from transformers import initialization as init

from dataloader.errors import InputError, in_brief
from routing_moe.model.base import is_of_base, refer_to_base
from routing_moe.model.configuration import RoutingBartConfig, check_fields
from routing_moe.model.injection import merged_weights
from routing_moe.model.loading import TIED_NAMES, bart_fields, load_bart, unfilled_model
from routing_moe.model.lora import is_of_expert
from routing_moe.model.projection import project_in_float32
from routing_moe.model.routed_layer import RoutedLayer

# ---- plain BART -> experts

# Names that the state dict of a plain BART may lack: parts of the mixture, and tensors tied to the embedding.
OPTIONAL_NAMES = re.compile(
    r"^router\.|^task_vectors\.|^task_routes|^route_vectors|\.layers\.|\.embed_tokens\.|^lm_head\.|final_logits_bias"
)


IN_LAYER = re.compile(r"model\.(encoder|decoder)\.layers\.(\d+)\.(.*)")


def from_bart(cls, bart, num_experts: int, init_eps: float, **config_fields):
    """Returns a routing BART whose experts are copies of a BART's layers plus N(0, init_eps) noise.

    bart: a name or path, or a `BartForConditionalGeneration`, which is not changed. A single expert and
    low-rank experts have no noise. It is drawn from torch's global generator in the published order (encoder
    layers, experts, parameters; then decoder). At 1e-8 it is below the resolution of float32 for weights near
    1.
    """
    place = None
    check_fields(config_fields, RoutingBartConfig)
    if not isinstance(bart, nn.Module):
        place, bart = bart, load_bart(bart)
    config_fields |= {"base_model": None, "base_sha256": None}  # those of another model
    config = RoutingBartConfig(**{**bart_fields(bart.config), "num_experts": num_experts, **config_fields})
    config.note_seen(getattr(bart.config, "weights_seen", None))
    model = unfilled_model(cls, config)
    model.generation_config = bart.generation_config
    load_plain_weights(model, bart.state_dict(), init_eps)
    if place is not None and config.has_lora:
        refer_to_base(model, place)
    return model


@torch.no_grad()
def load_plain_weights(model, plain: dict[str, Tensor], init_eps: float) -> None:
    """Copies a BART's state dict into experts (plus N(0, init_eps) noise), vanilla layers and embeddings."""
    head, embeddings = plain.get("lm_head.weight"), plain.get("model.shared.weight")
    untied = head is not None and embeddings is not None and not torch.equal(head, embeddings)
    if untied and model.config.tie_word_embeddings:  # the later of the two would replace the other
        raise InputError(
            "lm_head.weight of the BART differs from its embeddings, though its configuration ties them; set "
            '"tie_word_embeddings": false'
        )
    depths = {"encoder": model.config.encoder_layers, "decoder": model.config.decoder_layers}
    shared, layers = {}, {}  # {(side, number): {name in the layer: weight}}
    for name, tensor in plain.items():
        if match := IN_LAYER.fullmatch(name):
            layers.setdefault((match[1], int(match[2])), {})[match[3]] = tensor
        else:
            shared[name] = tensor
    try:
        missing, unexpected = model.load_state_dict(shared, strict=False)
        tied = model.config.tie_word_embeddings
        missing = [n for n in missing if not OPTIONAL_NAMES.search(n) or (TIED_NAMES.search(n) and not tied)]
        unexpected += [f"model.{side}.layers.{i}" for side, i in layers if i >= depths[side]]
        if missing or unexpected:
            kind, names = ("missing", missing) if missing else ("unexpected", unexpected)
            raise RuntimeError(f"{kind}: {', '.join(names[:3])}")
        for side, depth in depths.items():
            for i in range(depth):
                layer, weights = getattr(model.model, side).layers[i], layers.get((side, i), {})
                if model.lora_layers:  # its own experts stay
                    weights |= {k: v for k, v in layer.state_dict().items() if is_of_expert(k)}
                for expert in layer.experts if isinstance(layer, RoutedLayer) else [layer]:
                    expert.load_state_dict(weights)
                    if isinstance(layer, RoutedLayer) and len(layer.experts) > 1:
                        for parameter in expert.parameters():
                            parameter.add_(torch.randn(parameter.shape).to(parameter).mul_(init_eps))
    except RuntimeError as error:
        of_size = f"with {'+'.join(map(str, depths.values()))} layers, width {model.config.d_model}"
        raise InputError(f"these are not the weights of a plain BART {of_size}: {in_brief(error)}") from None


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
        share_tensors(bart, state)
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
    if model.lora_layers:
        return state | dict(merged_weights(model.lora_layers, routes_LE))
    for layer in model.routed_layers():
        if model.config.expert_mixing == "parameters":
            (weights,) = layer.merged_parameters(routes_LE[layer.row, None])
        else:
            weights = layer.experts[choices[layer.row]].state_dict(keep_vars=True)
        i = layer.row - encoder_layers
        place = f"model.encoder.layers.{layer.row}" if i < 0 else f"model.decoder.layers.{i}"
        state |= {f"{place}.{name}": tensor for name, tensor in weights.items()}
    return state


def share_tensors(meta_model, state: dict[str, Tensor]) -> None:
    """Fills a model on the meta device with the tensors of `state`, without copying them."""
    # Torch would set `requires_grad` to the meta model's, and so change the model that owns the tensors.
    requires_grad = {name: tensor.requires_grad for name, tensor in state.items()}
    meta_model.load_state_dict(state, assign=True)
    for name, tensor in state.items():
        tensor.requires_grad_(requires_grad[name])
    meta_model.tie_weights()


def with_shared_parameters(model):
    """Returns a copy of the model with the same parameters, not copied, whose routes may be changed."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
