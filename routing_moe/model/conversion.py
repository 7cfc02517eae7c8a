"""Plain BART to experts and back: upcycling, assembling the BART of a route, the published checkpoints."""

import re

import torch
from torch import Tensor, nn
from transformers import BartConfig, BartForConditionalGeneration
from transformers import initialization as init

from dataloader.errors import InputError, in_brief
from routing_moe.model.configuration import RoutingBartConfig
from routing_moe.model.loading import bart_fields, load_bart
from routing_moe.model.routed_layer import RoutedLayer

# ---- plain BART -> experts

# Names that a plain BART's state dict may lack: what it has not, and what is tied to the shared embedding.
NOT_OF_A_BART = re.compile(
    r"^router\.|^task_vectors\.|^task_routes|\.layers\.|\.embed_tokens\.|^lm_head\.|final_logits_bias"
)


def from_bart(cls, bart, num_experts: int, init_eps: float, **config_fields):
    """A routing BART whose E experts per layer are copies of a BART's layer plus N(0, init_eps) noise.

    A single expert is an exact copy: the noise is there to tell experts apart.

    bart: a name or path for `load_bart`, or a `BartForConditionalGeneration` (left as it is). config_fields:
    fields of `RoutingBartConfig`. The noise is drawn from torch's global generator in the published order
    (encoder layers, experts, parameters; then decoder). Note that at 1e-8 it is below float32 resolution for
    weights near 1, such as layer norms: those start equal.
    """
    if not isinstance(bart, nn.Module):
        bart = load_bart(bart)
    config = RoutingBartConfig(**{**bart_fields(bart.config), "num_experts": num_experts, **config_fields})
    model = cls(config)
    model.generation_config = bart.generation_config
    load_plain_weights(model, bart.state_dict(), init_eps)
    return model


@torch.no_grad()
def load_plain_weights(model, plain: dict[str, Tensor], init_eps: float) -> None:
    """Copy a plain BART's weights into every expert, with noise; embeddings and vanilla layers without.

    Raises InputError when the names or shapes are not those of a BART of this size.
    """
    try:
        shared = {name: tensor for name, tensor in plain.items() if ".layers." not in name}
        missing, unexpected = model.load_state_dict(shared, strict=False)
        missing = [name for name in missing if not NOT_OF_A_BART.search(name)]
        unexpected += _layers_beyond(model.config, plain)
        if missing:
            raise RuntimeError(f"they lack {', '.join(missing[:3])}")
        if unexpected:
            raise RuntimeError(f"they have besides {', '.join(unexpected[:3])}")
        for side in ("encoder", "decoder"):
            for i, layer in enumerate(getattr(model.model, side).layers):
                prefix = f"model.{side}.layers.{i}."
                weights = {k.removeprefix(prefix): v for k, v in plain.items() if k.startswith(prefix)}
                for expert in layer.experts if isinstance(layer, RoutedLayer) else [layer]:
                    expert.load_state_dict(weights)
                    if isinstance(layer, RoutedLayer) and len(layer.experts) > 1:
                        for parameter in expert.parameters():
                            parameter.add_(torch.randn(parameter.shape).to(parameter) * init_eps)
    except RuntimeError as error:
        depths = f"{model.config.encoder_layers}+{model.config.decoder_layers} layers"
        raise InputError(
            f"these are not the weights of a plain BART with {depths}, width {model.config.d_model}: "
            f"{in_brief(error)}"
        ) from None


def _layers_beyond(config, plain: dict[str, Tensor]) -> list[str]:
    """Names of weights of layers that a BART of this configuration does not have."""
    depths = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    found = ((name, re.match(r"model\.(encoder|decoder)\.layers\.(\d+)\.", name)) for name in plain)
    return [
        name
        for name, match in found
        if ".layers." in name and (match is None or int(match[2]) >= depths[match[1]])
    ]


# ---- experts -> plain BART


@torch.no_grad()
def assemble_bart(model, routes_LE: Tensor) -> BartForConditionalGeneration:
    """The plain BART that a route amounts to.

    routes_LE: (L, E); rows of vanilla layers are ignored. Where outputs are mixed, each layer's argmax
    expert counts and all parameters are shared, not copied; where parameters are, layers are merged anew.
    Built on the meta device, so that sharing costs no memory and some milliseconds.
    """
    choices = routes_LE.argmax(dim=-1).tolist()
    with torch.device("meta"), init.no_init_weights():
        bart = BartForConditionalGeneration(_plain_config(model))
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name.startswith(("router.", "task_vectors.", "task_routes")) or ".experts." in name:
            continue
        state[name] = tensor
    for layer in model.routed_layers():
        if model.config.expert_mixing == "parameters":
            weights = layer.merged_parameters(routes_LE[layer.row])
        else:
            weights = layer.experts[choices[layer.row]].state_dict(keep_vars=True)
        side, i = _side_and_index(model.config, layer.row)
        state |= {f"model.{side}.layers.{i}.{name}": tensor for name, tensor in weights.items()}
    share_tensors(bart, state)
    bart.generation_config = model.generation_config
    return bart.train(model.training)


def share_tensors(meta_model, state: dict[str, Tensor]) -> None:
    """Fill a model that was built on the meta device with the tensors of `state`, without copying them.

    The tensors keep their `requires_grad`. torch alone would set the meta model's on them, and thereby change
    the model that they are shared with.
    """
    trained = {name: tensor.requires_grad for name, tensor in state.items()}
    meta_model.load_state_dict(state, assign=True)
    for name, tensor in state.items():
        tensor.requires_grad_(trained[name])
    meta_model.tie_weights()


def _plain_config(model) -> BartConfig:
    config = model.config.to_bart_config()
    config._attn_implementation = model.config._attn_implementation
    return config


def _side_and_index(config, row: int) -> tuple[str, int]:
    return ("encoder", row) if row < config.encoder_layers else ("decoder", row - config.encoder_layers)


# ---- the routes of one model, the experts of a plain BART


def with_fresh_experts(model, bart, init_eps: float):
    """A new model with the router and task vectors of `model`, its experts made of a BART as in `from_bart`.

    This is what lies between the two stages of training: the second learns the experts anew, under routes
    that are known from the start. bart: a `BartForConditionalGeneration` with as many layers; its width may
    differ, for the router reads task vectors and knows layers by their number only. All fields of the mixture
    are the model's. Raises ValueError if it has no router or the depths differ.
    """
    if not model.config.has_router:
        raise ValueError("the model has no router; its routes come from elsewhere")
    depths = (bart.config.encoder_layers, bart.config.decoder_layers)
    if depths != (model.config.encoder_layers, model.config.decoder_layers):
        raise ValueError(f"the BART has {depths} encoder and decoder layers, which the router does not route")
    mixture = {name: getattr(model.config, name) for name in RoutingBartConfig.__annotations__}
    fresh = from_bart(type(model), bart, init_eps=init_eps, **mixture)
    fresh.router.load_state_dict(model.router.state_dict())
    fresh.task_vectors.load_state_dict(model.task_vectors.state_dict())
    return fresh


# ---- checkpoints of the published code
