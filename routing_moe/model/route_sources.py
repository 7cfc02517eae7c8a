"""Route sources: the learned routes of the method and its baselines, which differ only in their routes.

A source is a class; a user's function (model, task_ids_B) -> routes is made one. A source that is an
`nn.Module` is trained, and saved as the model's router. Shapes: B examples, N tasks, L layers (encoder, then
decoder), E experts. The baselines are those of Ye, Zha, Ren 2022 (arXiv 2205.12701), section 5.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dataloader.errors import InputError
from routing_moe.config.choices import ROUTE_SOURCES, ROUTER_MODES, SourceKind, is_of_user, kind_of
from routing_moe.model.selection import explore, random_one_hot, select_routes

TOLERANCE = 1e-3  # of the sums of weights


@dataclass(frozen=True, eq=False)
class RouteBatch:
    """What a source may read of B examples: rows of `config.task_names`, and the tokens of their inputs."""

    task_ids_B: Tensor
    input_ids_BS: Tensor | None = None
    mask_BS: Tensor | None = None

    @torch.no_grad()
    def pooled(self, model) -> Tensor:
        """Returns the mean embeddings (B, D) of the inputs, a constant for the gradient."""
        if self.mask_BS is not None and self.mask_BS.ndim != 2:
            raise ValueError(f"routes by inputs read a mask (B, S), not of {self.mask_BS.ndim} dimensions")
        embedded_BSD = model.get_input_embeddings()(self.input_ids_BS.to(model.device))
        embedded_BSD = embedded_BSD.to(model.routing_dtype)
        if self.mask_BS is None:
            return embedded_BSD.mean(dim=1)
        weight_BS1 = self.mask_BS.to(embedded_BSD)[..., None]
        return (embedded_BSD * weight_BS1).sum(dim=1) / weight_BS1.sum(dim=1).clamp(min=1)


class RouteSource(SourceKind):
    """Where the routes of a model come from. Its attributes are those of `SourceKind`."""

    def routes(self, model, batch: RouteBatch) -> Tensor:
        """Returns routes (B, L, E), rows that sum to 1: of a step in training mode, else of evaluation."""
        raise NotImplementedError

    def of_tasks(self, model, task_names: Sequence[str], mode=None, temperature=None, noise=False) -> Tensor:
        """Returns the routes (N, L, E) of tasks. mode, temperature, noise: of a selection, if any.

        Raises InputError if the examples of a task have routes of their own.
        """
        if not self.per_task:
            name = model.config.route_source
            raise InputError(f"{name} routes differ among the examples of a task; this needs one of the task")
        return self.routes(model, RouteBatch(model.task_rows(task_names)))

    def expected(self, model, task_names: Sequence[str], temperature: float) -> Tensor:
        """Returns the expected routes (N, L, E) of tasks: of drawn ones equal weights. Raises InputError."""
        source = Average() if self.is_drawn else self
        return source.of_tasks(model, task_names, temperature=temperature)


class Learned(RouteSource, ROUTE_SOURCES["learned"]):
    def routes(self, model, batch):
        """Returns the router's routes: sampled and explored in training, otherwise noise-free."""
        routes_BLE, epsilon = self.selected(model, batch.task_ids_B), model.config.exploration_epsilon
        return explore(routes_BLE, epsilon) if model.training and epsilon > 0 else routes_BLE

    def of_tasks(self, model, task_names, mode=None, temperature=None, noise=False):
        return self.selected(model, model.task_rows(task_names), mode, temperature, noise)

    def selected(self, model, rows_N: Tensor, mode=None, temperature=None, noise=None) -> Tensor:
        """Returns the routes (N, L, E) of rows of task vectors. None: as configured; noise in training."""
        config, noise = model.config, model.training if noise is None else noise
        temperature = config.router_temperature if temperature is None else temperature
        selection = mode or config.router_mode, temperature, config.encoder_rows, config.router_top_k
        return select_routes(model.router_logits(rows_N), *selection, noise)

    def expected(self, model, task_names, temperature):
        """Returns about the expectation for sampled modes: the routes without noise."""
        is_one_hot = model.config.router_mode == "gumbel_softmax_st"
        return self.of_tasks(model, task_names, "gumbel_softmax" if is_one_hot else None, temperature)


class Average(RouteSource, ROUTE_SOURCES["average"]):
    def routes(self, model, batch):
        """Returns routes with all weights 1/E."""
        return average(model, batch.task_ids_B)


class Random(RouteSource, ROUTE_SOURCES["random"]):
    def routes(self, model, batch):
        """Returns a one-hot for every example and layer, drawn at each call, also in evaluation."""
        size = (len(batch.task_ids_B), model.config.num_layers)
        return random_one_hot(size, model.config.num_experts, model.device).to(model.routing_dtype)


class Fixed(RouteSource, ROUTE_SOURCES["fixed"]):
    def routes(self, model, batch):
        """Returns the stored matrix of each task, `model.task_routes` (N, L, E), which is never trained."""
        return model.task_routes[batch.task_ids_B]


class ByInputs(nn.Module, RouteSource, ROUTE_SOURCES["inputs"]):
    """A router for each example: a linear map of the mean embedding of its input, then a softmax."""

    def __init__(self, config):
        super().__init__()
        self.size = config.num_layers, config.num_experts
        width = getattr(config, "backbone", config).hidden_size  # low-rank experts are of a backbone
        self.logits = nn.Linear(width, config.num_layers * config.num_experts)

    def routes(self, model, batch):
        return self.logits(batch.pooled(model)).unflatten(-1, self.size).softmax(dim=-1)


ROUTE_SOURCES |= {"learned": Learned, "average": Average, "random": Random, "fixed": Fixed}
ROUTE_SOURCES["inputs"] = ByInputs


def average(model, examples_B: Tensor) -> Tensor:
    """Returns routes (B, L, E) with all weights 1/E for as many examples."""
    size = len(examples_B), model.config.num_layers, model.config.num_experts
    return torch.full(size, 1 / size[2], device=model.device, dtype=model.routing_dtype)


def source_of(name: str, config=None) -> RouteSource:
    """Returns a new source. config: of the model, for a source with parameters."""
    entry = ROUTE_SOURCES[name]
    if isinstance(entry, type):
        return entry(config) if issubclass(entry, nn.Module) else entry()
    source = RouteSource()
    source.routes = lambda model, batch: entry(model, batch.task_ids_B)
    return source


def checked(config, routes, B: int) -> Tensor:
    """Returns the routes (B, L, E) of a source. Raises InputError if code of the user returned others.

    That of this package is not checked: a step would wait for the GPU. NaN passes: a model may have diverged.
    """
    entries = {f"ROUTE_SOURCES[{config.route_source!r}]": ROUTE_SOURCES[config.route_source]}
    if kind_of(config.route_source).reads_vectors:
        entries[f"ROUTER_MODES[{config.router_mode!r}]"] = ROUTER_MODES[config.router_mode]
    names = [name for name, entry in entries.items() if is_of_user(entry)]
    if not names:
        return routes
    size, problem = (B, config.num_layers, config.num_experts), None
    if not isinstance(routes, Tensor):
        problem = f"a {type(routes).__name__}"
    elif tuple(routes.shape) != size or not routes.is_floating_point():
        problem = f"{str(routes.dtype).removeprefix('torch.')} numbers of shape {tuple(routes.shape)}"
    elif (routes < 0).any():
        problem = f"the weight {routes.min():.4g}"
    elif ((sums := routes.detach().sum(dim=-1)) - 1).abs().max() > TOLERANCE:
        problem = f"rows that sum to {sums.min():.4g} to {sums.max():.4g}"
    if problem:
        right = f"floats of shape (B, L, E) = {size}, none below 0, in rows that sum to 1"
        raise InputError(f"{names[0]} returned {problem}; it must return {right}")
    return routes


def random_task_routes(num_tasks: int, num_layers: int, num_experts: int, n: int, seed: int) -> Tensor:
    """Returns routes (N, L, E) whose rows have n different experts of weight 1/n, by `seed` alone."""
    generator = torch.Generator().manual_seed(seed)
    # The indices of the n largest of E independent uniform numbers are a uniform choice of n experts.
    chosen_NLn = torch.rand(num_tasks, num_layers, num_experts, generator=generator).topk(n, dim=-1).indices
    return torch.zeros(num_tasks, num_layers, num_experts).scatter(-1, chosen_NLn, 1 / n)
