"""Bottleneck adapters (Houlsby et al. 2019): small trainable modules inside a frozen BART.

Every sub-layer is followed by an adapter, before the residual connection: two per encoder layer
(self-attention, feed-forward), three per decoder layer (cross-attention as well). Adapters are initialised
near the identity.
"""

import torch
from torch import Tensor, nn
from transformers.models.bart.modeling_bart import BartDecoderLayer, BartEncoderLayer

SUBLAYERS = {
    BartEncoderLayer: ("self_attn.out_proj", "fc2"),
    BartDecoderLayer: ("self_attn.out_proj", "encoder_attn.out_proj", "fc2"),
}
INIT_STD = 0.01  # of Houlsby et al.


class Adapter(nn.Module):
    """Wraps a `sublayer` with an adapter: h = sublayer(x), then h + up(gelu(down(h))).

    h has width D, the output of `down` has width `bottleneck`.
    """

    def __init__(self, sublayer: nn.Linear, bottleneck: int):
        super().__init__()
        D = sublayer.out_features
        self.sublayer = sublayer
        self.down, self.up = nn.Linear(D, bottleneck), nn.Linear(bottleneck, D)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.sublayer(hidden)
        return hidden + self.up(nn.functional.gelu(self.down(hidden)))


def insert_adapters(model: nn.Module, bottleneck: int, seed: int) -> dict[str, nn.Parameter]:
    """Inserts adapters into every BART layer of a model; returns their parameters by name.

    All other parameters are frozen. The same seed gives the same initial adapters, because Fisher information
    is compared between tasks weight by weight.
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
    """Parameters of all encoder and decoder layers by name; all other parameters are frozen."""
    model.requires_grad_(False)
    for layer in model.modules():
        if type(layer) in SUBLAYERS:
            layer.requires_grad_(True)
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
