"""A BART layer with E experts of low rank: updates of its linear maps, mixed by the route of a task.

Mixing products: a linear map is W x + s * sum over e of route[b, l, e] * B_e A_e x, with matrices A_e (r,
D_in) and B_e (D_out, r), and s = lora_alpha / r (LoRA: Hu et al. 2021, arXiv 2106.09685). W is that of a
plain BART and is the same for all tasks. Mixing factors (Poly: Ponti et al. 2022, arXiv 2202.13914): the
update is s * (sum route_e B_e) (sum route_e A_e) x. The input features of A and the output features of B may
be divided into H blocks (splits), each with weights of its own (MHR: Caccia et al. 2022, arXiv 2211.03831): a
layer then has H rows of the route, and its linear maps have the same weights.

Both are linear maps. So every route, not only a one-hot one, has an equivalent plain BART, with the weights
W + s * sum route_e B_e A_e, which generates at the cost of a plain BART.

In training, the factors of all experts are one matrix each: examples with any routes go through two products
and a weighting by their routes. If few experts have a weight above 0 and no gradient of the others is needed,
only the rows of these are used. Shapes: B examples, S tokens, E experts, K experts that an example uses, H
splits, r rank.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.bart.modeling_bart import BartDecoderLayer, BartEncoderLayer

from routing_moe.io.transfer import sent

ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
FEED_FORWARD = ("fc1", "fc2")
TARGETS = {  # {value of lora_targets: names of the linear maps of a layer that have experts}
    "attention": ATTENTION,
    "feed_forward": FEED_FORWARD,
    "all": ATTENTION + FEED_FORWARD,
}
EXPERT_NAMES = ("lora_A", "lora_B", ".tokens")  # of the parameters of experts, also of those of `tokens.py`
SMALLEST = 1e-30  # of a squared distance, so that its root has a gradient


@dataclass(frozen=True)
class LoraPlan:
    """Which experts the examples of a batch use, computed once per forward pass.

    routes_BLE: the weights. chosen_BLK: for every layer the experts with a weight above 0, filled up with
    others; None: all experts.
    """

    routes_BLE: Tensor
    chosen_BLK: Tensor | None = None

    @classmethod
    def of(
        cls,
        routes_BLE: Tensor,
        sparse: bool = True,
        constant_zeros: bool = False,
        on_cpu_BLE: Tensor | None = None,
    ) -> "LoraPlan":
        """Returns the plan for these routes.

        sparse: whether to leave out experts of weight 0. Those whose weight needs a gradient are needed,
        unless `constant_zeros` says that no zero depends on a trained parameter. on_cpu_BLE: the same routes
        on the CPU; None: they are copied there, for which the CPU must wait.
        """
        needs_all = routes_BLE.requires_grad and torch.is_grad_enabled() and not constant_zeros
        if needs_all or not sparse:
            return cls(routes_BLE)
        known_BLE = routes_BLE.detach().cpu() if on_cpu_BLE is None else on_cpu_BLE
        most = max(1, int((known_BLE != 0).sum(-1).max()))
        if not runs_few(most, known_BLE.shape[-1]):
            return cls(routes_BLE)
        chosen_BLK = known_BLE.abs().topk(most, dim=-1).indices
        return cls(routes_BLE, sent(chosen_BLK, routes_BLE.device))

    def layer(self, rows: slice) -> "Mix":
        """Returns the part of the layer with these rows of the routes."""
        weights_BHE = self.routes_BLE[:, rows]
        if self.chosen_BLK is None:
            return Mix(weights_BHE)
        chosen_BHK = self.chosen_BLK[:, rows]
        return Mix(weights_BHE.gather(2, chosen_BHK), chosen_BHK)


@dataclass(frozen=True)
class Mix:
    """The experts of one layer. weights_BHK: their weights. chosen_BHK: which they are; None: all, K = E."""

    weights_BHK: Tensor
    chosen_BHK: Tensor | None = None

    def of_rows(self, rows: int) -> "Mix":
        """Returns the mix for an input with fewer rows: encoder states that the beams of an input share."""
        beams = len(self.weights_BHK) // rows
        if beams == 1:
            return self
        return Mix(self.weights_BHK[::beams], None if self.chosen_BHK is None else self.chosen_BHK[::beams])


class LoraLinear(nn.Linear):
    """A linear map with E updates of low rank. `mix` is set by its layer for the time of a call.

    lora_A: (E, r, D_in). lora_B: (E, r, D_out), the transposed B of each expert.
    """

    def __init__(self, config, plain: nn.Linear):
        super().__init__(plain.in_features, plain.out_features, plain.bias is not None)
        E, r = config.num_experts, config.lora_rank
        # As peft draws them: B = 0 leaves the BART as it is, and different A let experts become different.
        # Not in `_init_weights`: transformers calls that of encoder and decoder, not that of this model.
        bound = 1 / math.sqrt(plain.in_features)
        self.lora_A = nn.Parameter(torch.rand(E, r, plain.in_features) * 2 * bound - bound)
        self.lora_B = nn.Parameter(torch.zeros(E, r, plain.out_features))
        self.scale, self.mixing, self.dropout = config.lora_scale, config.lora_mixing, config.lora_dropout
        self.splits = config.lora_splits
        self.mix: Mix | None = None

    def forward(self, x_BSD: Tensor) -> Tensor:
        of_plain = super().forward(x_BSD)
        if self.dropout:
            x_BSD = F.dropout(x_BSD, self.dropout, self.training)
        return torch.add(of_plain, self._update(x_BSD), alpha=self.scale)

    def _update(self, x_BSD: Tensor) -> Tensor:
        """Returns the mixed updates of the examples, without the scale."""
        A, B = self.lora_A, self.lora_B
        if len(A) == 1:  # the only weight is 1
            return F.linear(x_BSD, A[0]) @ B[0]
        mix = self.mix.of_rows(len(x_BSD))
        weights_BHK, chosen_BHK = mix.weights_BHK.to(A.dtype), mix.chosen_BHK
        if self.mixing == "factors":
            A, B = (self._mixed(factor, weights_BHK, chosen_BHK) for factor in (A, B))  # (B, r, D)
            return x_BSD @ A.transpose(1, 2) @ B
        weights_B1C = weights_BHK.repeat_interleave(A.shape[1], dim=-1)
        if chosen_BHK is None:
            return (F.linear(x_BSD, A.flatten(0, 1)) * weights_B1C) @ B.flatten(0, 1)
        A, B = (factor[chosen_BHK[:, 0]].flatten(1, 2) for factor in (A, B))  # (B, K r, D)
        return (x_BSD @ A.transpose(1, 2) * weights_B1C) @ B

    def _mixed(self, factor: Tensor, weights_BHK: Tensor, chosen_BHK: Tensor | None = None) -> Tensor:
        """Returns a factor of all experts mixed for each example: (B, r, D), of H blocks of features."""
        blocks = factor.unflatten(2, (self.splits, -1)).permute(2, 0, 1, 3)  # (H, E, r, D / H)
        if chosen_BHK is None:
            mixed = torch.einsum("bhk,hkrd->brhd", weights_BHK, blocks)
        else:
            split_H1 = torch.arange(self.splits, device=factor.device)[:, None]
            mixed = torch.einsum("bhk,bhkrd->brhd", weights_BHK, blocks[split_H1, chosen_BHK])
        return mixed.flatten(2)

    def merged(self, weights_HE: Tensor, used: Tensor) -> Tensor:
        """Returns the weight (D_out, D_in) of the equal plain linear map. used: experts of weight not 0."""
        A, B = self.lora_A, self.lora_B
        weights_HE = weights_HE.to(A.dtype)
        if self.mixing == "factors":
            A, B = (self._mixed(factor, weights_HE[None])[0] for factor in (A, B))
        else:
            A, B = (A[used] * weights_HE[0, used, None, None]).flatten(0, 1), B[used].flatten(0, 1)
        return torch.addmm(self.weight, B.T, A, alpha=self.scale)

    def inner_products(self) -> Tensor:
        """Returns the inner products (E, E) of the experts' updates s * B_e A_e, as matrices."""
        A, B = self.lora_A.flatten(0, 1), self.lora_B.flatten(0, 1)
        E, r = self.lora_A.shape[:2]
        return self.scale**2 * ((A @ A.T) * (B @ B.T)).view(E, r, E, r).sum((1, 3))


class LoraLayer:
    """A BART layer whose linear maps have experts. A base of the two classes of layers below."""

    def add_experts(self, config, row: int) -> None:
        """Adds experts to the linear maps. row: the number of this layer (encoder first)."""
        self.row, self.num_experts = row, config.num_experts
        self.rows = slice(row * config.lora_splits, (row + 1) * config.lora_splits)  # of the routes
        for module in list(self.modules()):
            for name, child in list(module.named_children()):
                if name in TARGETS[config.lora_targets] and type(child) is nn.Linear:
                    setattr(module, name, LoraLinear(config, child))
        # {name in the layer: a linear map with experts}; a plain dict, which registers no module again
        self.linear_maps = {n: module for n, module in self.named_modules() if isinstance(module, LoraLinear)}

    def forward(
        self,
        hidden_BSD: Tensor,
        *args,
        routes: Tensor | None = None,
        route_plan: LoraPlan | None = None,
        **kwargs,
    ) -> Tensor:
        """Returns hidden states (B, S, D). Arguments as for `RoutedLayer.forward`."""
        mix = None
        if self.num_experts > 1:
            mix = (route_plan or LoraPlan.of(routes)).layer(self.rows)
        for linear in self.linear_maps.values():
            linear.mix = mix
        output = super().forward(hidden_BSD, *args, **kwargs)
        for linear in self.linear_maps.values():
            linear.mix = None  # it holds the graph of the routes
        return output

    def merged(self, weights_HE: Tensor, used: Tensor) -> dict[str, Tensor]:
        """Returns {name in the layer: weight} of the linear maps of the equivalent plain layer."""
        return {
            f"{name}.weight": linear.merged(weights_HE, used) for name, linear in self.linear_maps.items()
        }

    @torch.no_grad()
    def copy_expert(self, source: int, target: int) -> None:
        """Gives the expert `target` the weights of the expert `source`."""
        for linear in self.linear_maps.values():
            for factor in (linear.lora_A, linear.lora_B):
                factor[target] = factor[source]

    def expert_distance(self) -> Tensor:
        """Returns the mean over pairs of experts of the sum over linear maps of |s (B_p A_p - B_q A_q)|."""
        return sum(mean_distance(linear.inner_products()) for linear in self.linear_maps.values())

    @torch.no_grad()
    def relative_expert_distance(self) -> float:
        """Returns the mean over pairs of experts p, q of |p - q| / sqrt((|p|^2 + |q|^2) / 2).

        p and q are the updates of all linear maps; 0 for experts that are 0.
        """
        products = sum(linear.inner_products().double() for linear in self.linear_maps.values())
        return mean_relative_distance(products)


class LoraEncoderLayer(LoraLayer, BartEncoderLayer):
    """An encoder layer with low-rank experts."""


class LoraDecoderLayer(LoraLayer, BartDecoderLayer):
    """A decoder layer with low-rank experts."""


def runs_few(used: float, num_experts: int) -> bool:
    """Returns whether examples run only the experts that they use, which is faster from 4 times as many."""
    return 4 * used <= num_experts


def mean_distance(products_EE: Tensor) -> Tensor:
    """Returns the mean distance of two of E vectors with these inner products; 0 of a single one."""
    if len(products_EE) == 1:
        return products_EE.new_zeros(())
    return _squares_and_norms(products_EE)[0].clamp_min(SMALLEST).sqrt().mean()


def mean_relative_distance(products_EE: Tensor) -> float:
    """Returns the mean of |p - q| / sqrt((|p|^2 + |q|^2) / 2) over pairs of E vectors with these products."""
    squares, norms = _squares_and_norms(products_EE)
    return float((squares.clamp_min(0) / (norms / 2).clamp_min(SMALLEST)).sqrt().mean())


def _squares_and_norms(products_EE: Tensor) -> tuple[Tensor, Tensor]:
    """Returns |p - q|^2 and |p|^2 + |q|^2 of all pairs."""
    p, q = torch.triu_indices(*products_EE.shape, 1, device=products_EE.device)
    norms = products_EE.diagonal()[p] + products_EE.diagonal()[q]
    return norms - 2 * products_EE[p, q], norms


def is_of_expert(name: str) -> bool:
    """Returns whether a parameter of this name belongs to a low-rank expert or is the tokens of experts."""
    return name.endswith(EXPERT_NAMES)
