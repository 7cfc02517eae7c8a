"""A BART layer that is a small set of experts: E complete stock layers, mixed by a task's route.

Mixing outputs (the method): the output of layer l for example b is the sum over experts e of
route[b, l, e] * expert_e(hidden[b]). What makes it fast is one rule, exact for every kind of route: an
expert whose weight is zero adds nothing to the output and receives exactly zero gradient, so it need not run.
Where the weights themselves are trained (straight-through routes), the loss's derivative by a zero weight is
<gradient, expert's output>: such an expert still runs, but without building a graph. Where a zero is sure to
stay (top-k routes), not even that. Dense routes have no zeros and run everything.

Mixing parameters (soft merging, SMEAR: Muqeeth, Liu, Raffel 2023, arXiv 2306.03745, section 2.3): one layer
runs whose parameters are the sum over e of route[b, l, e] * parameters_e. A route belongs to a task, so a
batch merges once for each of its distinct routes. For one-hot routes it is the same as mixing outputs.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

EXPERT_MIXINGS = ("outputs", "parameters")


@dataclass(frozen=True)
class RoutePlan:
    """Which examples each expert runs on, worked out once per forward pass.

    routes_BLE: the weights. order_LEB: for every layer and expert the examples, those with a weight first;
    n_active: how many those are, [layer][expert]. Without them every expert runs on every example (the
    specification that the sparse path is tested against, and the only way to decode with a cache, where an
    expert must have seen every token). rest_runs: whether an example's experts of weight zero run for the
    sake of the weights' gradient. merged: to mix parameters, the examples of each distinct route.
    """

    routes_BLE: Tensor
    order_LEB: Tensor | None = None
    n_active: list[list[int]] | None = None
    rest_runs: bool = False
    merged: list[Tensor] | None = None

    @classmethod
    def sparse(cls, routes_BLE: Tensor, zeros_stay: bool = False) -> "RoutePlan":
        """Skip what has weight zero. Costs one transfer, of L*E numbers, from the device to the CPU.

        zeros_stay: no weight of zero depends on anything trained, so that its gradient is of no use.
        """
        rests_LEB = (routes_BLE.detach() == 0).permute(1, 2, 0)
        order_LEB = rests_LEB.to(torch.uint8).argsort(dim=-1, stable=True)
        rest_runs = routes_BLE.requires_grad and not zeros_stay
        return cls(routes_BLE, order_LEB, (~rests_LEB).sum(-1).tolist(), rest_runs)

    @classmethod
    def dense(cls, routes_BLE: Tensor) -> "RoutePlan":
        return cls(routes_BLE)

    @classmethod
    def merging(cls, routes_BLE: Tensor, groups_B: Tensor | None = None) -> "RoutePlan":
        """Mix parameters, once for all examples of equal routes.

        A group's gradient is shared out evenly among its examples. So where the routes' gradient is asked
        for, groups are those given (numbers, equal where routes are and share a gradient), else each
        example is its own.
        """
        if not (routes_BLE.requires_grad and torch.is_grad_enabled()):
            groups_B = routes_BLE.detach().unique(dim=0, return_inverse=True)[1]
        elif groups_B is None:
            groups_B = torch.arange(len(routes_BLE))
        groups_B = groups_B.to(routes_BLE.device)
        return cls(routes_BLE, merged=[(groups_B == g).nonzero()[:, 0] for g in groups_B.unique().tolist()])

    def examples(self, row: int, expert: int) -> tuple[Tensor | None, Tensor | None]:
        """(active, resting) example indices of an expert of layer `row`; None stands for all of them."""
        nobody = torch.empty(0, dtype=torch.long)
        n_active = None if self.n_active is None else self.n_active[row][expert]
        if n_active in (None, len(self.routes_BLE)):
            return None, nobody
        if n_active == 0:
            return nobody, None
        return self.order_LEB[row, expert].tensor_split([n_active])


class RoutedLayer(nn.Module):
    """E stock BART layers behind the interface of one.

    config: the model's. row: which row of the route this layer reads (encoder first). keeps_cache: whether
    it may have to decode token by token, where every expert must see every token. Whatever else the model
    hands down (masks, encoder states, the cache under whatever name) is passed on to the experts as it came.
    """

    def __init__(self, config, experts: list[nn.Module], row: int, keeps_cache: bool):
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.config, self.row, self.keeps_cache = config, row, keeps_cache

    def forward(
        self,
        hidden_BSD: Tensor,
        *args,
        routes: Tensor | None = None,
        route_plan: RoutePlan | None = None,
        **kwargs,
    ) -> Tensor:
        """Mixed hidden states (B, S, D). `routes` (B, L, E) come without a plan when the library decodes."""
        if len(self.experts) == 1:  # the only weight is 1
            return self.experts[0](hidden_BSD, *args, **kwargs)
        plan = route_plan or self._plan(routes)
        if plan.merged is not None:
            return self._mix_parameters(plan, hidden_BSD, args, kwargs)
        return self._mix_outputs(plan, hidden_BSD, args, kwargs)

    def _plan(self, routes_BLE: Tensor) -> RoutePlan:
        if self.config.expert_mixing == "parameters":
            return RoutePlan.merging(routes_BLE)
        return RoutePlan.dense(routes_BLE) if self.keeps_cache else RoutePlan.sparse(routes_BLE)

    def _mix_outputs(self, plan: RoutePlan, hidden_BSD: Tensor, args, kwargs) -> Tensor:
        weights_BE = plan.routes_BLE[:, self.row]
        mixed_BSD = None
        for e, expert in enumerate(self.experts):
            active, resting = plan.examples(self.row, e)
            groups = [(active, True)]
            if plan.rest_runs and torch.is_grad_enabled():
                groups.append((resting, False))
            for examples, with_graph in groups:
                if examples is None or len(examples):
                    inputs, named = _of_examples(examples, hidden_BSD, args, kwargs)
                    with torch.set_grad_enabled(with_graph and torch.is_grad_enabled()):
                        output = expert(*inputs, **named)
                    mixed_BSD = _accumulate(mixed_BSD, output, weights_BE[:, e], examples, hidden_BSD.shape)
        return mixed_BSD

    def _mix_parameters(self, plan: RoutePlan, hidden_BSD: Tensor, args, kwargs) -> Tensor:
        outputs = []
        for examples in plan.merged:
            # The weights of a group are equal; their mean hands each example its share of the gradient.
            merged = self.merged_parameters(plan.routes_BLE[examples, self.row].mean(dim=0))
            inputs, named = _of_examples(examples, hidden_BSD, args, kwargs)
            outputs.append(functional_call(self.experts[0], merged, inputs, named))
        order_B = torch.cat(plan.merged).argsort()
        return torch.cat(outputs)[order_B]

    def merged_parameters(self, weights_E: Tensor) -> dict[str, Tensor]:
        """The weighted sum of the experts' parameters, by their names in an expert."""
        named = [dict(expert.named_parameters()) for expert in self.experts]
        return {
            name: sum(weight * parameters[name] for weight, parameters in zip(weights_E, named, strict=True))
            for name in named[0]
        }

    def expert_distance(self) -> Tensor:
        """Mean over pairs of experts of the summed L2 distances of their parameters; 0 for one expert."""
        E = len(self.experts)
        pairs = [(a, b) for a in range(E) for b in range(a + 1, E)]
        total = next(self.parameters()).new_zeros(())
        for a, b in pairs:
            for p, q in zip(self.experts[a].parameters(), self.experts[b].parameters(), strict=True):
                total = total + torch.linalg.vector_norm(p - q)
        return total / max(len(pairs), 1)

    def relative_expert_distance(self) -> float:
        """Mean over pairs of experts of |p - q| / sqrt((|p|^2 + |q|^2) / 2), of their parameters p, q."""
        vectors = [parameters_to_vector(expert.parameters()) for expert in self.experts]
        pairs = [
            torch.dist(p, q) / ((p.square().sum() + q.square().sum()) / 2).sqrt()
            for p, q in itertools.combinations(vectors, 2)
        ]
        return float(sum(pairs) / len(pairs))


def _of_examples(examples: Tensor | None, hidden_BSD: Tensor, args, kwargs) -> tuple[tuple, dict]:
    """What the given examples (None: all of them) hand to an expert: positional and named arguments."""

    def chosen(value):
        # Batch-first tensors follow their examples. A one-dimensional tensor is never batch-first here
        # (it holds positions), even if its length happens to be B.
        batch_first = isinstance(value, Tensor) and value.dim() > 1 and value.shape[0] == len(hidden_BSD)
        return value.index_select(0, examples) if examples is not None and batch_first else value

    inputs = tuple(chosen(value) for value in (hidden_BSD, *args))
    return inputs, {name: chosen(value) for name, value in kwargs.items()}


def _accumulate(mixed_BSD, output, weights_B, examples, shape) -> Tensor:
    """mixed + weights * output, the output standing for the given examples (None: all of them)."""
    weights_B = weights_B.to(output.dtype)
    if examples is None:
        weighted = output * weights_B[:, None, None]
        return weighted if mixed_BSD is None else mixed_BSD + weighted
    weighted = output * weights_B.index_select(0, examples)[:, None, None]
    if mixed_BSD is None:
        mixed_BSD = output.new_zeros(shape)
    return mixed_BSD.index_add(0, examples, weighted)
