"""Routers: networks that map a task vector to one logit per layer and expert.

The ten published architectures (Ye, Zha, Ren 2022, arXiv 2205.12701): perceptrons for all layers or for each;
eight treat the layers as a sequence of the task vector plus a position embedding, or of its projections
(`*_layer_specific`), which an RNN, LSTM, GRU or transformer layer processes before a linear layer. The
eleventh, `table`, is no network: the task vectors are the logits. Shapes: N tasks, D task-vector width, H
hidden width, L layers, E experts.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from routing_moe.config.choices import ROUTERS, SEQUENCES
from routing_moe.model.configuration import TRANSFORMER_HEADS

TRANSFORMER_FFN_DIM = 64


class Perceptron(nn.Module):
    """vectors (N, D) -> (N, out): one hidden GELU layer of width H."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int):
        super().__init__()
        self.hidden = nn.Linear(input_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, output_dim)

    def forward(self, vectors_ND: Tensor) -> Tensor:
        return self.output(F.gelu(self.hidden(vectors_ND)))


class LinearRouter(Perceptron):
    """One perceptron for the logits of all layers: vectors (N, D) -> (N, L, E)."""

    def __init__(self, config):
        self.shape = config.num_layers, config.num_experts
        super().__init__(config.router_input_dim, config.router_hidden_dim, math.prod(self.shape))

    def forward(self, vectors_ND: Tensor) -> Tensor:
        return super().forward(vectors_ND).unflatten(-1, self.shape)


class LayerwiseRouter(nn.Module):
    """One perceptron for each layer: vectors (N, D) -> (N, L, E)."""

    def __init__(self, config):
        super().__init__()
        self.units = nn.ModuleList(
            Perceptron(config.router_input_dim, config.router_hidden_dim, config.num_experts)
            for _ in range(config.num_layers)
        )

    def forward(self, vectors_ND: Tensor) -> Tensor:
        return torch.stack([unit(vectors_ND) for unit in self.units], dim=1)


class SequenceRouter(nn.Module):
    """Treats the layers as a sequence: embeds, mixes and projects positions, vectors (N, D) -> (N, L, E)."""

    def __init__(self, config):
        super().__init__()
        D, H, L = config.router_input_dim, config.router_hidden_dim, config.num_layers
        kind = config.router_nn_type.removesuffix("_layer_specific")
        if config.router_nn_type.endswith("_layer_specific"):
            self.layer_projection, self.layer_embedding, width = nn.Linear(D, H * L), None, H
        else:
            self.layer_projection, self.layer_embedding, width = None, nn.Embedding(L, D), D
        if kind == "transformer":
            self.mixer = nn.TransformerEncoderLayer(
                width, TRANSFORMER_HEADS, dim_feedforward=TRANSFORMER_FFN_DIM, batch_first=True
            )
            mixed_width = width
        else:
            recurrent = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[kind]
            self.mixer = recurrent(width, H, bidirectional=True, batch_first=True)
            mixed_width = 2 * H
        self.output = nn.Linear(mixed_width, config.num_experts)
        self.num_layers = L

    def forward(self, vectors_ND: Tensor) -> Tensor:
        if self.layer_projection is not None:
            positions_NLW = self.layer_projection(vectors_ND).unflatten(-1, (self.num_layers, -1))
        else:
            positions_NLW = vectors_ND.unsqueeze(1) + self.layer_embedding.weight
        mixed = self.mixer(positions_NLW)
        if isinstance(mixed, tuple):  # recurrent modules return their last state, too
            mixed = mixed[0]
        return self.output(mixed)


class TableRouter(nn.Module):
    """Task vectors that are logits: (N, L * E) -> (N, L, E). Has no parameters."""

    def __init__(self, config):
        super().__init__()
        self.shape = (config.num_layers, config.num_experts)

    def forward(self, vectors_ND: Tensor) -> Tensor:
        return vectors_ND.unflatten(-1, self.shape)


ROUTERS |= {
    "linear": LinearRouter,
    "linear_layer_specific": LayerwiseRouter,
    **dict.fromkeys(SEQUENCES, SequenceRouter),
    **{f"{kind}_layer_specific": SequenceRouter for kind in SEQUENCES},
    "table": TableRouter,
}
