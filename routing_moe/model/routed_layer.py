"""A BART layer with E experts, each a complete BART layer, mixed by the route of a task.

Mixing outputs (the method): the output of layer l for example b is the sum over experts e of
route[b, l, e] * expert_e(hidden[b]). An expert with weight zero adds nothing and gets zero gradient, so it
does not have to run. If the weights themselves are trained (straight-through routes), the derivative of the
loss by a zero weight is <gradient, expert's output>: such an expert runs without building a graph. If zeros
are constant (top-k routes), it does not run at all.

Mixing parameters (soft merging, SMEAR: Muqeeth, Liu, Raffel 2023, arXiv 2306.03745, section 2.3): one layer
runs whose parameters are the sum over e of route[b, l, e] * parameters_e, merged once per different route of
a batch, all of them in one matrix product. For one-hot routes, this equals mixing outputs.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector
from transformers.modeling_layers import GradientCheckpointingLayer

from routing_moe.io.transfer import sent


@dataclass(frozen=True)
class Groups:
    """The groups of a batch's examples with equal routes, for mixing parameters.

    weights_GLE: their routes. sizes: numbers of examples. order_B: the examples, group by group; inverse_B:
    the permutation back. Both are None for a single group.
    """

    weights_GLE: Tensor
    sizes: list[int]
    order_B: Tensor | None = None
    inverse_B: Tensor | None = None


@dataclass(frozen=True)
class RoutePlan:
    """Which examples each expert runs on, computed once per forward pass.

    routes_BLE: the weights. order_LEB: the examples for every layer and expert, those with nonzero weight
    first; n_active: the number of these, [layer][expert]; both None: every expert runs on every example, as
    the tests' reference does, and decoding with a cache. runs_inactive: whether experts also run where their
    weight is zero, for its gradient. merged: if parameters are mixed, the groups of examples.
    """

    routes_BLE: Tensor
    order_LEB: Tensor | None = None
    n_active: list[list[int]] | None = None
    runs_inactive: bool = False
    merged: Groups | None = None

    @classmethod
    def sparse(
        cls, routes_BLE: Tensor, constant_zeros: bool = False, on_cpu_BLE: Tensor | None = None
    ) -> "RoutePlan":
        """Returns a plan that skips weights of zero.

        constant_zeros: no zero weight depends on a trained parameter, so its gradient is not needed.
        on_cpu_BLE: the same routes on the CPU; None: they are copied there, for which the CPU must wait.
        """
        known_BLE = routes_BLE.detach().cpu() if on_cpu_BLE is None else on_cpu_BLE
        is_zero_LEB = (known_BLE == 0).permute(1, 2, 0)
        order_LEB = is_zero_LEB.to(torch.uint8).argsort(dim=-1, stable=True)
        n_active = (~is_zero_LEB).sum(-1).tolist()
        runs_inactive = routes_BLE.requires_grad and not constant_zeros
        return cls(routes_BLE, sent(order_LEB, routes_BLE.device), n_active, runs_inactive)

    @classmethod
    def merging(
        cls, routes_BLE: Tensor, groups_B: Tensor | None = None, on_cpu_BLE: Tensor | None = None
    ) -> "RoutePlan":
        """Returns a plan that mixes parameters, once per group of examples with equal routes.

        groups_B: equal numbers for examples with the same route and route gradient, used if routes need a
        gradient, which is divided evenly in a group; None: one group per example. on_cpu_BLE: as in `sparse`.
        """
        device = routes_BLE.device
        if not (routes_BLE.requires_grad and torch.is_grad_enabled()):
            known_BLE = routes_BLE.detach().cpu() if on_cpu_BLE is None else on_cpu_BLE
            which_B = known_BLE.unique(dim=0, return_inverse=True)[1]
        elif groups_B is None:
            which_B = torch.arange(len(routes_BLE))
        else:
            which_B = groups_B.cpu().unique(return_inverse=True)[1]
        sizes = which_B.bincount().tolist()
        if len(sizes) == 1:
            return cls(routes_BLE, merged=Groups(routes_BLE.mean(dim=0, keepdim=True), sizes))
        order_B = which_B.argsort(stable=True)
        inverse_B, order_B = sent(order_B.argsort(), device), sent(order_B, device)
        # The routes of a group are equal; their mean divides the gradient among the examples.
        means = [routes.mean(dim=0) for routes in routes_BLE[order_B].split(sizes)]
        return cls(routes_BLE, merged=Groups(torch.stack(means), sizes, order_B, inverse_B))

    def examples(self, row: int, expert: int) -> tuple[Tensor | None, Tensor | None]:
        """Returns (active, inactive) example indices of an expert of layer `row`; None means all examples."""
        no_examples = torch.empty(0, dtype=torch.long)
        n_active = None if self.n_active is None else self.n_active[row][expert]
        if n_active in (None, len(self.routes_BLE)):
            return None, no_examples
        if n_active == 0:
            return no_examples, None
        return self.order_LEB[row, expert].tensor_split([n_active])


class RoutedLayer(GradientCheckpointingLayer):
    """E BART layers with the interface of one.

    config: that of the model. row: the row of the route for this layer (encoder first). is_decoder: whether
    the layer may decode token by token, for which every expert must process every token. All other arguments
    (masks, encoder states, the cache under any name) are passed on to the experts.
    """

    def __init__(self, config, experts: list[nn.Module], row: int, is_decoder: bool):
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.config, self.row, self.is_decoder = config, row, is_decoder

    def forward(self, hidden_BSD: Tensor, *args, routes=None, route_plan=None, **kwargs) -> Tensor:
        """Returns mixed hidden states (B, S, D). When transformers decodes, `routes` come without a plan."""
        if len(self.experts) == 1:  # the only weight is 1
            return self.experts[0](hidden_BSD, *args, **kwargs)
        plan = route_plan
        if plan is None and self.config.expert_mixing == "parameters":
            plan = RoutePlan.merging(routes)
        elif plan is None:
            plan = RoutePlan(routes) if self.is_decoder else RoutePlan.sparse(routes)
        mix = self._mix_outputs if plan.merged is None else self._mix_parameters
        return mix(plan, hidden_BSD, args, kwargs)

    def _mix_outputs(self, plan: RoutePlan, hidden_BSD: Tensor, args, kwargs) -> Tensor:
        weights_BE = plan.routes_BLE[:, self.row]
        mixed_BSD = None
        for e, expert in enumerate(self.experts):
            active, inactive = plan.examples(self.row, e)
            groups = [(active, True)]
            if plan.runs_inactive and torch.is_grad_enabled():
                groups.append((inactive, False))
            for examples, with_graph in groups:
                if examples is None or len(examples):
                    inputs, named = _of_examples(examples, hidden_BSD, args, kwargs)
                    with torch.set_grad_enabled(with_graph and torch.is_grad_enabled()):
                        output = expert(*inputs, **named)
                    mixed_BSD = _accumulate(mixed_BSD, output, weights_BE[:, e], examples, hidden_BSD.shape)
        return mixed_BSD

    def _mix_parameters(self, plan: RoutePlan, hidden_BSD: Tensor, args, kwargs) -> Tensor:
        groups, outputs, start = plan.merged, [], 0
        merged = self.merged_parameters(groups.weights_GLE[:, self.row])
        inputs, named = _of_examples(groups.order_B, hidden_BSD, args, kwargs)
        for parameters, size in zip(merged, groups.sizes, strict=True):
            rows = slice(start, start + size)
            own, own_named = _of_examples(rows, inputs[0], inputs[1:], named)
            outputs.append(functional_call(self.experts[0], parameters, own, own_named))
            start += size
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs).index_select(0, groups.inverse_B)

    def merged_parameters(self, weights_GE: Tensor) -> list[dict[str, Tensor]]:
        """Returns the G weighted sums of the experts' parameters, {name in an expert: tensor}."""
        named = [dict(expert.named_parameters()) for expert in self.experts]
        merged = {name: _Merged.apply(weights_GE, *(own[name] for own in named)) for name in named[0]}
        return [dict(zip(merged, own, strict=True)) for own in zip(*merged.values(), strict=True)]

    def expert_distance(self) -> Tensor:
        """Returns the expert distance: the mean over pairs of experts of their distance; 0 for one expert.

        The distance of a pair is the sum of the L2 distances of their parameter tensors.
        """
        pairs = list(itertools.combinations(self.experts, 2))
        total = next(self.parameters()).new_zeros(())
        for first, second in pairs:
            for p, q in zip(first.parameters(), second.parameters(), strict=True):
                total = total + torch.linalg.vector_norm(p - q)
        return total / max(len(pairs), 1)

    @torch.no_grad()
    def relative_expert_distance(self) -> float:
        """Returns the mean over pairs of experts p, q of |p - q| / sqrt((|p|^2 + |q|^2) / 2).

        p and q are the vectors of all parameters of an expert.
        """
        vectors = [parameters_to_vector(expert.parameters()) for expert in self.experts]
        pairs = [
            torch.dist(p, q) / ((p.square().sum() + q.square().sum()) / 2).sqrt()
            for p, q in itertools.combinations(vectors, 2)
        ]
        return float(sum(pairs) / len(pairs))


class _Merged(torch.autograd.Function):
    """Returns the weighted sums (G, ...) of a parameter of each expert, with weights (G, E).

    Several sums are one matrix product; a single one is faster elementwise on a CPU. The stack of parameters
    that the product needs is made again for the gradient: kept, it would take the memory of another model.
    All parameters of a layer in one product would double its time on a CPU, which does not use such large
    memory again.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(weights_GE: Tensor, *parameters: Tensor) -> Tensor:
        weights_GE = weights_GE.to(parameters[0].dtype)
        if len(weights_GE) == 1:
            merged = parameters[0] * weights_GE[0, 0]
            for e, parameter in enumerate(parameters[1:], 1):
                merged = merged.addcmul_(parameter, weights_GE[0, e])
            return merged[None]
        return _product(weights_GE, torch.stack(parameters).flatten(1)).view(-1, *parameters[0].shape)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grads: Tensor):
        weights_GE, *parameters = ctx.saved_tensors
        weights_GE, grads_GP = weights_GE.to(grads.dtype), grads.flatten(1)
        by_weights, by_parameters = None, [None] * len(parameters)
        if len(weights_GE) == 1:
            if ctx.needs_input_grad[0]:
                by_weights = torch.stack([grads_GP[0].dot(p.flatten()) for p in parameters])[None]
            if any(ctx.needs_input_grad[1:]):
                by_parameters = [grads[0] * weight for weight in weights_GE[0]]
        else:
            if ctx.needs_input_grad[0]:
                by_weights = _product(grads_GP, torch.stack(parameters).flatten(1).T)
            if any(ctx.needs_input_grad[1:]):
                by_parameters = _product(weights_GE.T, grads_GP).view(-1, *grads.shape[1:]).unbind()
        return by_weights, *by_parameters


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Returns a @ b in their own type: mixed precision is for activations."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


def _of_examples(examples: Tensor | slice | None, hidden_BSD: Tensor, args, kwargs) -> tuple[tuple, dict]:
    """Returns positional and named arguments of an expert for the given examples (None: all of them)."""

    def chosen(value):
        # Select from batch-first tensors. A one-dimensional tensor is never batch-first here (it contains
        # positions), even if its length happens to be B.
        batch_first = isinstance(value, Tensor) and value.dim() > 1 and value.shape[0] == len(hidden_BSD)
        if examples is None or not batch_first:
            return value
        return value[examples] if isinstance(examples, slice) else value.index_select(0, examples)

    inputs = tuple(chosen(value) for value in (hidden_BSD, *args))
    return inputs, {name: chosen(value) for name, value in kwargs.items()}


def _accumulate(mixed_BSD, output, weights_B, examples, shape) -> Tensor:
    """Returns mixed + weights * output, where `output` is for the given examples (None: all of them)."""
    weights_B = weights_B.to(output.dtype)
    if examples is None:
        weighted = output * weights_B[:, None, None]
        return weighted if mixed_BSD is None else mixed_BSD + weighted
    weighted = output * weights_B.index_select(0, examples)[:, None, None]
    if mixed_BSD is None:
        mixed_BSD = output.new_zeros(shape)
    return mixed_BSD.index_add(0, examples, weighted)
