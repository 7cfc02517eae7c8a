"""FLOPs of the matrix products of any model, forward and backward, as torch counts them; active parameters.

A copy of the model runs on the meta device, without memory, on an example whose lengths are primes. So each
product tells how its FLOPs depend on the lengths: S source and T target tokens, padding included, and K
target tokens that are predicted. A decoder-only model has no T: its S tokens are input and answer.

Not counted: what is elementwise (norms, activations, weighting of outputs, merging of parameters), the loss,
expert regularisation, the optimizer, evaluations, and layers that the backward pass computes again.
"""

import copy
from collections import Counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from routing_moe.model.lora import LoraLinear, lora_class
from routing_moe.model.loss import with_targets
from routing_moe.model.routed_model import RoutedModel

PRIMES = (100_003, 100_019, 100_043)  # S, T and K; they divide no other dimension of a model
Terms = Counter  # {(exponents of S, T and K): factor}, a polynomial
_known: dict[tuple, Terms] = {}


class Products(TorchDispatchMode):
    """Counts the FLOPs of the calls in the block as a polynomial in the lengths."""

    def __init__(self):
        super().__init__()
        self.terms = Terms()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if count := flop_registry.get(function._overloadpacket):
            flops, exponents = count(*args, **(kwargs or {}), out_val=out), []
            for prime in PRIMES:
                exponents.append(0)
                while flops and flops % prime == 0:
                    flops, exponents[-1] = flops // prime, exponents[-1] + 1
            self.terms[tuple(exponents)] += flops
        return out


def example_flops(model, lengths_3N: np.ndarray, routes_BLE: Tensor | None = None) -> np.ndarray:
    """Returns the FLOPs (N,) of examples of lengths S, T and K, the mean over routes on the CPU.

    With gradients enabled also of the backward pass: of the parameters that are trained, and of the routes if
    they need a gradient. model: a routing BART, a `RoutedModel`, or a plain model, without routes.
    """
    key = (type(model), torch.is_grad_enabled(), *((p.shape, p.requires_grad) for p in model.parameters()))
    if routes_BLE is not None:
        names = ("router_mode", "expert_mixing", "lora_mixing")
        key += tuple(getattr(model.config, name) for name in names)
        key += (routes_BLE.requires_grad, (routes_BLE != 0).numpy().tobytes())
    if key not in _known:
        with Products() as products:
            output = run_on_meta(on_meta(model), routes_BLE)
            if output.requires_grad:
                output.sum().backward()
        _known[key] = products.terms
    lengths_3N = np.asarray(lengths_3N, dtype=float)
    terms = [factor * np.prod(lengths_3N.T**exponents, axis=1) for exponents, factor in _known[key].items()]
    return sum(terms) / (1 if routes_BLE is None else len(routes_BLE))


def rows_flops(model, examples) -> int:
    """Returns the FLOPs of a forward pass of the plain model on all examples, without padding."""
    if isinstance(model, RoutedModel):  # whose merged weights would be a second copy of a large base
        meta = on_meta(model)
        for linear in (linear for layer in meta.lora_layers for linear in layer.linear_maps.values()):
            linear.remove_updates(linear.weight)
        plain = meta.backbone
    else:
        one_expert_LE = torch.eye(1, model.config.num_experts).repeat(model.config.num_layers, 1)
        plain = model.to_plain(one_expert_LE.to(model.device, model.routing_dtype))
    with torch.no_grad():
        lengths_3N = np.stack([*examples.lengths(), examples.target_lengths_N])
        return round(example_flops(plain, lengths_3N).sum())


def active_parameters(model, routes_BLE: Tensor) -> int:
    """Returns the number of parameters that process an example, the mean over routes.

    These are all but router, task vectors, and the experts of weight 0; merged experts count as one.
    """
    used_LE, model = (routes_BLE != 0).double().mean(dim=0), on_meta(model)
    if model.config.expert_mixing == "parameters":
        used_LE = torch.full_like(used_LE, 1 / model.config.num_experts)
    of_routing = ("router.", "task_vectors.")
    active = sum(p.numel() for name, p in model.named_parameters() if not name.startswith(of_routing))
    for layer in model.lora_layers or model.routed_layers():
        if isinstance(layer, nn.Module):
            rows, parameters = layer.row, list(layer.parameters())
        else:
            rows = layer.rows
            parameters = [p for m in layer.linear_maps.values() for p in (m.lora_A, m.lora_B)]
        active -= float(1 - used_LE[rows].mean()) * sum(p.numel() for p in parameters)
    return round(active)


def on_meta(module: nn.Module) -> nn.Module:
    """Returns a copy on the meta device, without dropout; in float32, as layers look at values in float16."""
    tensors = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in module.parameters()}
    tensors |= {id(buffer): buffer.to("meta") for buffer in module.buffers()}
    copied = copy.deepcopy(module, tensors).eval().float()
    for part in copied.modules():
        if hasattr(part, "quant_state"):  # of bitsandbytes: the same products, of plain linear maps
            part.__class__ = lora_class(nn.Linear) if isinstance(part, LoraLinear) else nn.Linear
            weight = torch.empty(part.out_features, part.in_features, device="meta")
            part.weight = nn.Parameter(weight, requires_grad=False)
    return copied


def run_on_meta(meta, routes_BLE: Tensor | None) -> Tensor:
    """Returns the loss of B examples along these routes; of a plain model the logits of one example."""
    meta.set_attn_implementation("eager")  # fused kernels are not counted
    meta.set_experts_implementation("batched_mm")
    B = 1 if routes_BLE is None else len(routes_BLE)
    S, T, K = PRIMES
    T = T if meta.config.is_encoder_decoder else S
    tokens, labels = (torch.ones(B, n, dtype=torch.long, device="meta") for n in (S, T))
    # Without a mask, decoders look for several texts in one row, in the values of positions.
    inputs = {"input_ids": tokens} | ({} if meta.config.is_encoder_decoder else {"attention_mask": tokens})
    if routes_BLE is None:
        return meta(**with_targets(meta, inputs, labels)[0]).logits
    return meta(
        **inputs,
        labels=labels,
        routes=torch.empty_like(routes_BLE, device="meta").requires_grad_(routes_BLE.requires_grad),
        routes_on_cpu=routes_BLE.detach(),
        route_groups=torch.zeros(B, dtype=torch.long),
        constant_zeros=meta.config.router_mode == "top_k",
        label_positions=torch.zeros(B * K, dtype=torch.long, device="meta"),
        loss_only=True,
    ).loss
