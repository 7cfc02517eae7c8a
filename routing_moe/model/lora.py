"""Experts of low rank for the linear maps of any model of transformers, mixed by the route of a task.

`injection.py` gives the linear maps of a model's layers E updates each. Nothing else of the model changes.
`using_routes` says which experts the examples of the calls in a block use.

Mixing products: a linear map is W x + s * sum over e of route[b, l, e] * B_e A_e x, with matrices A_e (r,
D_in) and B_e (D_out, r), and s = lora_alpha / r (LoRA: Hu et al. 2021, arXiv 2106.09685). Mixing factors
(Poly: Ponti et al. 2022, arXiv 2202.13914): the update is s * (sum route_e B_e) (sum route_e A_e) x. The
input features of A and the output features of B may be divided into H blocks (splits), each with a row of the
route of its own (MHR: Caccia et al. 2022, arXiv 2211.03831).

So every route has an equivalent plain model, with the weights W + s * sum route_e B_e A_e. In training, the
factors of all experts are one matrix each: examples with any routes go through two products and a weighting.
If few experts have a weight above 0 and no gradient of the others is needed, only their rows are used.
Shapes: B examples, S tokens, E experts, K experts that an example uses, H splits, r rank, R = K r.
"""

import functools
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataloader.errors import InputError
from routing_moe.io.transfer import sent

EXPERT_NAMES = ("lora_A", "lora_B")  # of the parameters of experts
SMALLEST = 1e-30  # of a squared distance, so that its root has a gradient


@dataclass(frozen=True)
class LoraPlan:
    """Which experts the examples of a batch use, computed once per forward pass.

    routes_BLE: the weights. chosen_BLK: for every layer the experts with a weight above 0, filled up with
    others; None: all experts. copies: rows of an example in a generation (its beams); None: a single pass.
    """

    routes_BLE: Tensor
    chosen_BLK: Tensor | None = None
    copies: int | None = None

    @classmethod
    def of(cls, routes_BLE, sparse=True, constant_zeros=False, on_cpu_BLE=None) -> "LoraPlan":
        """Returns the plan for these routes.

        sparse: whether to leave out experts of weight 0, unless the weight needs a gradient: with
        `constant_zeros` no zero does. on_cpu_BLE: the same routes on the CPU; None: they are copied there,
        for which the CPU waits.
        """
        needs_all = routes_BLE.requires_grad and torch.is_grad_enabled() and not constant_zeros
        if needs_all or not sparse:
            return cls(routes_BLE)
        known_BLE = routes_BLE.detach().cpu() if on_cpu_BLE is None else on_cpu_BLE
        most = max(1, int((known_BLE != 0).sum(-1).max()))
        if 4 * most > known_BLE.shape[-1]:  # running only those that are used is faster from 4 times as many
            return cls(routes_BLE)
        chosen_BLK = known_BLE.abs().topk(most, dim=-1).indices
        return cls(routes_BLE, sent(chosen_BLK, routes_BLE.device))

    def layer(self, rows: slice) -> "ActiveExperts":
        """Returns the part of the layer with these rows of the routes."""
        weights_BHE = self.routes_BLE[:, rows]
        if self.chosen_BLK is None:
            return ActiveExperts(weights_BHE, copies=self.copies)
        chosen_BHK = self.chosen_BLK[:, rows]
        return ActiveExperts(weights_BHE.gather(2, chosen_BHK), chosen_BHK, self.copies)


@dataclass(frozen=True, eq=False)
class ActiveExperts:
    """The experts of one layer. weights_BHK: their weights. chosen_BHK: which they are; None: all, K = E.

    copies: as of the plan. kept: {linear map: its factors of these experts}, which the steps of a generation
    compute once. In a single pass, those of all maps together would take most of the memory.
    """

    weights_BHK: Tensor
    chosen_BHK: Tensor | None = None
    copies: int | None = None
    kept: dict = field(default_factory=dict)


class LoraLinear:
    """A linear map with E updates of low rank, a base of `lora_class`. `layer` is the `LoraLayer` of it.

    lora_A: (E, r, D_in). lora_B: (E, r, D_out), the transposed B of each expert. They are in float32 or
    better, also of a model in 16 bits.
    """

    def add_updates(self, layer: "LoraLayer", config) -> None:
        """Adds updates, which are 0."""
        E, r, weight = config.num_experts, config.lora_rank, self.weight
        # As peft draws them: B = 0 leaves the model as it is, and different A let experts become different.
        # Not in `_init_weights`: transformers calls that of encoder and decoder, not that of this model.
        bound = 1 / math.sqrt(self.in_features)
        kind = dict(device=weight.device, dtype=torch.promote_types(weight.dtype, torch.float32))
        self.lora_A = nn.Parameter(torch.rand(E, r, self.in_features, **kind) * 2 * bound - bound)
        self.lora_B = nn.Parameter(torch.zeros(E, r, self.out_features, **kind))
        self.scale, self.mixing, self.dropout = config.lora_scale, config.lora_mixing, config.lora_dropout
        self.splits, self.layer = config.lora_splits, layer

    def remove_updates(self, weight: Tensor) -> None:
        """Makes this a plain linear map again, with another weight."""
        for name in ("lora_A", "lora_B", "scale", "mixing", "dropout", "splits", "layer"):
            delattr(self, name)
        self.__class__ = type(self).__bases__[1]
        self.weight = nn.Parameter(weight, requires_grad=self.weight.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        of_plain, dtype = super().forward(x), self.lora_A.dtype
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
            x = x.to(dtype)
        out = None if torch.is_grad_enabled() else of_plain  # in place: large tensors are slow to allocate
        return torch.add(of_plain, self._update(x).to(of_plain.dtype), alpha=self.scale, out=out)

    def _update(self, x: Tensor) -> Tensor:
        """Returns the mixed updates of the examples, without the scale.

        x: (B, S, D), or with the rows of several beams or tokens of each of the B examples, in their order.
        """
        if len(self.lora_A) == 1:  # the only weight is 1
            return F.linear(x, self.lora_A[0]) @ self.lora_B[0]
        active = self.layer.active
        if active is None:
            raise RuntimeError("the backbone of a routed model runs along routes: call the routed model")
        examples = len(active.weights_BHK)
        if examples > 1 and x.ndim > 2 and len(x) not in (examples, examples * (active.copies or 1)):
            raise InputError(
                f"a linear map gets inputs of shape {tuple(x.shape)} in a batch of {examples} examples; "
                "experts need models whose first dimension is that of the examples"
            )
        A, B, weights_B1R = self._factors(active)
        inner_BSR = x.reshape(examples, -1, x.shape[-1]) @ A.mT
        if weights_B1R is not None:
            inner_BSR = inner_BSR * weights_B1R
        return (inner_BSR @ B).view(*x.shape[:-1], -1)

    def _factors(self, active: ActiveExperts) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns A (R, D_in) and B (R, D_out), of each example or of all, and weights (B, 1, R), if any."""
        if (factors := active.kept.get(self)) is not None:
            return factors
        A, B = self.lora_A, self.lora_B
        weights_BHK, chosen_BHK = active.weights_BHK.to(A.dtype), active.chosen_BHK
        weights_B1R = weights_BHK.repeat_interleave(A.shape[1], dim=-1)
        if self.mixing == "factors":  # (B, r, D)
            factors = *(self._mixed(factor, weights_BHK, chosen_BHK) for factor in (A, B)), None
        elif chosen_BHK is None:
            factors = A.flatten(0, 1), B.flatten(0, 1), weights_B1R
        else:  # (B, K r, D). `embedding` picks rows, as indexing does, but faster, also in the backward pass.
            chosen_BK = chosen_BHK[:, 0]
            A, B = (F.embedding(chosen_BK, factor.flatten(1)) for factor in (A, B))
            A = A.view(len(chosen_BK), -1, self.in_features)
            factors = A, B.view(len(chosen_BK), -1, self.out_features), weights_B1R
        if active.copies and not torch.is_grad_enabled():
            active.kept[self] = factors
        return factors

    def _mixed(self, factor: Tensor, weights_BHK: Tensor, chosen_BHK: Tensor | None = None) -> Tensor:
        """Returns a factor of all experts mixed for each example: (B, r, D), of H blocks of features."""
        blocks = factor.unflatten(2, (self.splits, -1)).permute(2, 0, 1, 3)  # (H, E, r, D / H)
        if chosen_BHK is None:
            mixed = torch.einsum("bhk,hkrd->brhd", weights_BHK, blocks)
        else:
            split_H1 = torch.arange(self.splits, device=factor.device)[:, None]
            mixed = torch.einsum("bhk,bhkrd->brhd", weights_BHK, blocks[split_H1, chosen_BHK])
        return mixed.flatten(2)

    def factors_along(self, weights_HE: Tensor, used_K: Tensor) -> tuple[Tensor, Tensor]:
        """Returns A (R, D_in), B (R, D_out) of one update along a route of the experts `used_K`, unscaled."""
        A, B = self.lora_A, self.lora_B
        weights_HE = weights_HE.to(A.dtype)
        if self.mixing == "factors":
            A, B = (self._mixed(factor, weights_HE[None])[0] for factor in (A, B))
            return A, B
        return (A[used_K] * weights_HE[0, used_K, None, None]).flatten(0, 1), B[used_K].flatten(0, 1)

    def merged(self, weights_HE: Tensor, used_K: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Returns the weight (D_out, D_in) of the equal plain linear map. dtype: None: of its own weight."""
        A, B = self.factors_along(weights_HE, used_K)
        merged = torch.addmm(self.weight.to(A.dtype), B.T, A, alpha=self.scale)
        return merged.to(dtype or self.weight.dtype)

    def inner_products(self) -> Tensor:
        """Returns the inner products (E, E) of the experts' updates s * B_e A_e, as matrices."""
        A, B = self.lora_A.flatten(0, 1), self.lora_B.flatten(0, 1)
        E, r = self.lora_A.shape[:2]
        return self.scale**2 * ((A @ A.T) * (B @ B.T)).view(E, r, E, r).sum((1, 3))


@functools.cache
def lora_class(plain: type[nn.Linear]) -> type:
    """Returns the class of linear maps of a class with updates."""
    return type(f"Lora{plain.__name__}", (LoraLinear, plain), {"__module__": __name__})


@dataclass(eq=False)
class LoraLayer:
    """The experts of one layer: a view, no module.

    name: of the layer in the model. rows: those of a route that it reads.
    linear_maps: {name in the layer: linear map with experts}. active: its experts in a block of
        `using_routes`.
    """

    name: str
    rows: slice
    linear_maps: dict[str, LoraLinear]
    active: ActiveExperts | None = None

    def expert_distance(self) -> Tensor:
        """Returns the mean over pairs of experts of the sum over linear maps of |s (B_p A_p - B_q A_q)|."""
        products = [linear.inner_products() for linear in self.linear_maps.values()]
        if len(products[0]) == 1:
            return products[0].new_zeros(())
        return sum(_squares_and_norms(p_EE)[0].clamp_min(SMALLEST).sqrt().mean() for p_EE in products)

    @torch.no_grad()
    def relative_expert_distance(self) -> float:
        """Returns the mean over pairs of experts p, q of |p - q| / sqrt((|p|^2 + |q|^2) / 2).

        p and q are the updates of all linear maps; 0 for experts that are 0.
        """
        products = sum(linear.inner_products().double() for linear in self.linear_maps.values())
        squares, norms = _squares_and_norms(products)
        return float((squares.clamp_min(0) / (norms / 2).clamp_min(SMALLEST)).sqrt().mean())


# ---- running a model along routes


@contextmanager
def using_experts(layers: list[LoraLayer], experts_of_layers: list[ActiveExperts | None]) -> Iterator[None]:
    """Runs the calls of the model in the block with these experts of each layer."""
    before = [layer.active for layer in layers]
    try:
        for layer, active in zip(layers, experts_of_layers, strict=True):
            layer.active = active
        yield
    finally:
        for layer, active in zip(layers, before, strict=True):
            layer.active = active


def using_routes(layers: list[LoraLayer], plan: LoraPlan | None) -> AbstractContextManager[None]:
    """Runs the calls of the model in the block along a plan; None: with a single expert."""
    return using_experts(layers, [plan and plan.layer(layer.rows) for layer in layers])


def recomputed(layers: list[LoraLayer]) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Returns the contexts of a part in the forward pass, and when a checkpoint repeats it."""
    return nullcontext(), using_experts(layers, [layer.active for layer in layers])


# ---- distances of experts


def _squares_and_norms(products_EE: Tensor) -> tuple[Tensor, Tensor]:
    """Returns |p - q|^2 and |p|^2 + |q|^2 of all pairs."""
    p, q = torch.triu_indices(*products_EE.shape, 1, device=products_EE.device)
    norms = products_EE.diagonal()[p] + products_EE.diagonal()[q]
    return norms - 2 * products_EE[p, q], norms


def is_of_expert(name: str) -> bool:
    """Returns whether a parameter of this name belongs to a low-rank expert."""
    return name.endswith(EXPERT_NAMES)
