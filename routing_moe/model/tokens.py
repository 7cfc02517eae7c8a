"""Experts that are vectors, learned tokens: they tell a BART which route, or which task, a text belongs to.

An input begins with <s>, at the first position: the same embedding for all texts. The tokens of the experts,
weighted by the route, are added to it, so that <s> becomes a prompt of one vector for each route (prompt
tuning: Lester, Al-Rfou, Constant 2021, arXiv 2104.08691), and no input becomes longer. So every route, not
only a one-hot one, has an equivalent plain BART, with another embedding of the first position of its encoder.
Tokens are 0 at first, and trained with the BART, at its rate. B examples, S positions, E experts, D
dimensions.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.bart.modeling_bart import BartLearnedPositionalEmbedding

from routing_moe.model.lora import mean_distance, mean_relative_distance


class TokenExperts(BartLearnedPositionalEmbedding):
    """The encoder's embeddings of positions, with a token (E, D) of each expert for the first one.

    weights_BE is set by `take_route` for the time of a call of the encoder. rows: of a route that are read.
    """

    row, rows = 0, slice(0, 1)

    def __init__(self, config):
        super().__init__(config.max_position_embeddings, config.d_model)
        self.tokens = nn.Parameter(torch.zeros(config.num_experts, config.d_model))
        self.weights_BE: Tensor | None = None

    def forward(self, *args, **kwargs) -> Tensor:
        """Returns the embeddings (B, S, D) of positions."""
        positions_BSD = super().forward(*args, **kwargs)
        added_BD = self.tokens if self.weights_BE is None else self._mixed(self.weights_BE)
        return positions_BSD + F.pad(added_BD[:, None], (0, 0, 0, positions_BSD.shape[1] - 1))

    def _mixed(self, weights_BE: Tensor) -> Tensor:
        # As embeddings, tokens are not rounded in mixed precision.
        with torch.autocast(weights_BE.device.type, enabled=False):
            return weights_BE.to(self.tokens.dtype) @ self.tokens

    def merged(self, weights_1E: Tensor, used: Tensor) -> dict[str, Tensor]:
        """Returns {name: weight} of the equivalent plain embeddings. Arguments as of `LoraLinear.merged`."""
        weight = self.weight.clone()
        weight[self.offset] += self._mixed(weights_1E)[0]
        return {"weight": weight}

    @torch.no_grad()
    def copy_expert(self, source: int, target: int) -> None:
        """Gives the expert `target` the token of the expert `source`."""
        self.tokens[target] = self.tokens[source]

    def expert_distance(self) -> Tensor:
        """Returns the mean distance of two tokens."""
        return mean_distance(self.tokens @ self.tokens.T)

    @torch.no_grad()
    def relative_expert_distance(self) -> float:
        """Returns the mean over pairs of tokens p, q of |p - q| / sqrt((|p|^2 + |q|^2) / 2)."""
        tokens = self.tokens.double()
        return mean_relative_distance(tokens @ tokens.T)


def add_tokens(encoder, config) -> None:
    """Replaces the embeddings of positions of an encoder by `TokenExperts`, which read a call's routes."""
    encoder.embed_positions = TokenExperts(config)
    encoder.register_forward_pre_hook(take_route, with_kwargs=True)
    encoder.register_forward_hook(release_route, always_call=True)


def take_route(encoder, args: tuple, kwargs: dict) -> None:
    """Takes the weights of tokens from the encoder's arguments `route_plan` or `routes`."""
    plan, routes_BLE = kwargs.get("route_plan"), kwargs.get("routes")
    if len(encoder.embed_positions.tokens) > 1:  # the only weight is 1
        routes_BLE = routes_BLE if plan is None else plan.routes_BLE
        encoder.embed_positions.weights_BE = routes_BLE[:, encoder.embed_positions.row]


def release_route(encoder, args: tuple, output) -> None:
    encoder.embed_positions.weights_BE = None  # it holds the graph of the routes
