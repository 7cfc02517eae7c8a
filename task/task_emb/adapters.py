"""Bottleneck adapters (Houlsby et al. 2019): the few weights of a frozen BART that learn a task.

An adapter stands behind each sub-layer of every layer, before its residual connection: two in an encoder
layer (self-attention, feed-forward), three in a decoder layer (cross-attention too). It starts near the
identity.
"""

import torch
from torch import Tensor, nn
from transformers.models.bart.modeling_bart import BartDecoderLayer, BartEncoderLayer

SUBLAYERS = {
    BartEncoderLayer: ("self_attn.out_proj", "fc2"),
    BartDecoderLayer: ("self_attn.out_proj", "encoder_attn.out_proj", "fc2"),
}
INIT_STD = 0.01  # as Houlsby et al.


class Adapter(nn.Module):
    """x + up(gelu(down(x))), x of width D, the bottleneck of width r; behind `sublayer`, which it calls."""

    def __init__(self, sublayer: nn.Linear, bottleneck: int):
        super().__init__()
        D = sublayer.out_features
        self.sublayer = sublayer
        self.down, self.up = nn.Linear(D, bottleneck), nn.Linear(bottleneck, D)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.sublayer(hidden)
        return hidden + self.up(nn.functional.gelu(self.down(hidden)))


def insert_adapters(model: nn.Module, bottleneck: int, seed: int) -> dict[str, nn.Parameter]:
    """Puts adapters into every BART layer of a model; their parameters by name, the only ones with gradients.

    The same seed gives the same adapters: Fisher information of different tasks is compared weight by weight.
    """
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for layer in [module for module in model.modules() if type(module) in SUBLAYERS]:
        for path in SUBLAYERS[type(layer)]:
            owner, _, name = path.rpartition(".")
            owner = layer.get_submodule(owner)
            adapter = Adapter(getattr(owner, name), bottleneck)
            for linear in (adapter.down, adapter.up):
                nn.init.normal_(linear.weight, std=INIT_STD, generator=generator)
                nn.init.zeros_(linear.bias)
            setattr(owner, name, adapter.to(adapter.sublayer.weight))
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def layer_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All weights of the encoder's and decoder's layers, by name, the only ones with gradients."""
    model.requires_grad_(False)
    for layer in model.modules():
        if type(layer) in SUBLAYERS:
            layer.requires_grad_(True)
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
