"""Gives the linear maps of a model's layers low-rank experts, and makes the plain model of a route.

A layer is an element of one of the model's lists of layers: of the encoder, then of the decoder; a
decoder-only model has one list. No name of a model's class or of its parts is needed, except that those of
attention have "attn" or "attention" in their name, and experts of a model's own mixture "experts".
"""

import copy
import re

import torch
from torch import Tensor, nn

from dataloader.errors import InputError, in_short
from routing_moe.io.transfer import sent
from routing_moe.model.lora import LoraLayer, LoraLinear, lora_class

OF_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)  # in the name of a linear map in its layer


def inject(model: nn.Module, config) -> list[LoraLayer]:
    """Gives the linear maps of a model's layers experts; returns the layers with experts, encoder first."""
    if any(isinstance(module, LoraLinear) for module in model.modules()):
        raise InputError(f"this {type(model).__name__} has low-rank experts already; give the plain model")
    lists = stacks(model)
    if tuple(map(len, lists.values())) != tuple(depth for depth in config.depths if depth):
        found = ", ".join(f"{name} ({len(layers)})" for name, layers in lists.items())
        raise InputError(
            f"{type(model).__name__} has the lists of layers {found or 'none'}; experts need one list of the "
            f"encoder (if any) and one of the decoder, with {config.depths} layers"
        )
    layers, H = [], config.lora_splits
    named = [(f"{name}.{i}", layer) for name, own in lists.items() for i, layer in enumerate(own)]
    for row, (name, layer) in enumerate(named):
        if row in config.routed_layers:
            maps = linear_maps(name, layer, config)
            layers.append(LoraLayer(name, slice(row * H, (row + 1) * H), maps))
            # Outer ones first, such as BART's fc1: the order of all draws so far, so that a seed's stay.
            for linear in sorted(maps, key=lambda name: name.count(".")):
                maps[linear].__class__ = lora_class(type(maps[linear]))
                maps[linear].add_updates(layers[-1], config)
    return layers


def stacks(model: nn.Module) -> dict[str, nn.ModuleList]:
    """Returns {name: layers} of a model's lists of layers, encoder first: those that are in no other list."""
    found: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{other}.") for other in found):
            found[name] = module
    return found


def linear_maps(layer_name: str, layer: nn.Module, config) -> dict[str, nn.Linear]:
    """Returns {name: linear map} of a layer that get experts. Raises InputError for what cannot get them.

    Those are matrices that are no weight of an `nn.Linear` (experts of a mixture in one tensor, `Conv1D`),
    quantized weights but those of bitsandbytes in 4 bits, and linear maps for some of the tokens only, which
    do not know whose tokens these are.
    """
    maps, missed = {}, []
    for name, weight in layer.named_parameters():
        place, _, _ = name.rpartition(".")
        module = layer.get_submodule(place)
        kind = "attention" if OF_ATTENTION.search(name) else "feed_forward"
        is_target = config.lora_targets in ("all", kind)
        if weight.ndim < 2 or isinstance(module, nn.Embedding) or not is_target:
            continue
        is_4bit = getattr(weight, "quant_state", None) is not None  # of bitsandbytes
        is_float = weight.is_floating_point() and weight.itemsize > 1
        if not isinstance(module, nn.Linear) or not (is_4bit or is_float) or ".experts." in f".{place}.":
            missed.append(f"{layer_name}.{name} ({type(module).__name__}, {weight.dtype})")
        else:
            maps[place] = module
    if missed:
        raise InputError(
            f"{in_short(missed)}: no weight of a plain linear map for all tokens, so that it cannot have "
            "low-rank experts; take other lora_targets, or another model"
        )
    widths = {width for linear in maps.values() for width in (linear.in_features, linear.out_features)}
    if any(width % config.lora_splits for width in widths):
        raise InputError(f"lora_splits is {config.lora_splits}; it must divide the widths {sorted(widths)}")
    if not maps:
        raise InputError(f"{layer_name} has no linear maps of lora_targets {config.lora_targets!r}")
    return maps


# ---- the equivalent plain model


@torch.no_grad()
def plain_copy(
    model: nn.Module,
    layers: list[LoraLayer],
    routes_LE: Tensor,
    device=None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Returns the equivalent plain model of a route, which shares all tensors without experts.

    device: of the plain model, None: the same. A copy elsewhere takes no memory beside the model, and is
    never there twice. dtype: of the merged weights, None: that of the base.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    if device is not None:
        merged = {id(linear.weight) for layer in layers for linear in layer.linear_maps.values()}
        shared |= {key: moved(tensor, device) for key, tensor in shared.items() if key not in merged}
    plain, known_LE = copy.deepcopy(model, shared), routes_LE.cpu()  # a GPU is waited for once
    for layer in layers:
        used_K = (known_LE[layer.rows] != 0).any(dim=0).nonzero()[:, 0]
        used_K = sent(used_K, routes_LE.device)
        for name, linear in layer.linear_maps.items():
            weight = linear.merged(routes_LE[layer.rows], used_K, dtype)
            weight = weight if device is None else weight.to(device)
            plain.get_submodule(f"{layer.name}.{name}").remove_updates(weight)
    return plain


def moved(tensor: Tensor, device: str | torch.device) -> Tensor:
    """Returns the tensor, or a parameter of equal values, on a device."""
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(tensor.detach().to(device), tensor.requires_grad)
    return tensor.to(device)
