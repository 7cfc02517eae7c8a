"""What a routing BART and a `RoutedModel` have in common: routes of tasks, saving, export as an adapter."""

import functools
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import initialization as init
from transformers.modeling_outputs import Seq2SeqLMOutput

from dataloader.atomic_files import final_path
from dataloader.encoded import IGNORED_LABEL
from dataloader.errors import InputError, in_short
from routing_moe.config.choices import has_parameters, kind_of
from routing_moe.io.transfer import sent
from routing_moe.model.adapter_files import factors_of, name_of_base, write_adapter
from routing_moe.model.base import place_from, stored_tensors
from routing_moe.model.given_routes import GivenRoutes
from routing_moe.model.lora import LoraLayer, recomputed
from routing_moe.model.loss import projected_at, token_losses
from routing_moe.model.route_sources import RouteBatch, RouteSource, checked, source_of
from routing_moe.model.routers import ROUTERS
from routing_moe.model.task_vectors import save_task_vectors

TABLE_BOUND = 1e-3  # of the first logits of a table router (Ponti et al. 2022, arXiv 2202.13914)


class TaskVectors(nn.Embedding):
    """One vector per task (N, D), initialised from N(0, 1); of a table router near 0."""


class RoutingModel:
    """A base of the models with experts, beside a class of transformers: routes, saving, adapters."""

    lora_layers: Sequence[LoraLayer] = ()
    supports_gradient_checkpointing = True

    # ---- the routes of tasks

    def add_routing(self) -> None:
        """Adds what the configuration's route source needs: a router with task vectors, or fixed routes."""
        config = self.config
        self.router = self.task_vectors = None
        self.router = self.new_router()
        if config.has_router:
            self.task_vectors = TaskVectors(len(config.task_names), config.router_input_dim)
        if config.source_kind.is_stored:
            size = (len(config.task_names), config.num_layers, config.num_experts)
            self.register_buffer("task_routes", torch.full(size, 1 / config.num_experts))
            if config.has_route_vectors:
                self.register_buffer("route_vectors", torch.zeros(size[0], config.router_input_dim))

    def new_router(self) -> nn.Module | None:
        """Returns a new router of the configuration, or its source, if that has parameters, else None."""
        if self.config.has_router:
            return ROUTERS[self.config.router_nn_type](self.config)
        has_some = self.config.num_experts > 1 and has_parameters(self.config.route_source)
        return source_of(self.config.route_source, self.config) if has_some else None

    @property
    def source(self) -> RouteSource:
        """The source of the routes."""
        if isinstance(self.router, RouteSource):
            return self.router
        return source_of("average" if self.config.num_experts == 1 else self.config.route_source)

    @property
    def routing_dtype(self) -> torch.dtype:
        """The type of vectors and routes: float32 or better, also of a model in 16 bits."""
        return torch.promote_types(self.dtype, torch.float32)

    def router_logits(self, task_ids_N: Tensor) -> Tensor:
        """Returns the logits (N, L, E) of rows of `task_vectors`."""
        logits_NLE = self.router(self.task_vectors(task_ids_N))
        expected = (len(task_ids_N), self.config.num_layers, self.config.num_experts)
        if logits_NLE.shape != expected:
            name, shape = self.config.router_nn_type, tuple(logits_NLE.shape)
            raise InputError(f"router {name}: it returned {shape}, but (N, L, E) is {expected}")
        return logits_NLE

    def draw_routes(self, task_ids_B: Tensor, input_ids_BS=None, mask_BS=None) -> Tensor:
        """Returns routes (B, L, E) of the source, in training mode sampled; tensors are on any device.

        If parameters are mixed, routes are drawn once per task, so a batch merges once per different task.
        Raises InputError if code of the user returns no routes.
        """
        source = self.source
        if source.reads_inputs and input_ids_BS is None:
            raise InputError(f"{self.config.route_source} routes depend on inputs: give them, or routes")
        if self.config.expert_mixing == "outputs" or not source.per_task:
            batch = RouteBatch(sent(task_ids_B, self.device), input_ids_BS, mask_BS)
            return checked(self.config, source.routes(self, batch), len(task_ids_B))
        tasks_N, which_B = task_ids_B.unique(return_inverse=True)
        routes_NLE = source.routes(self, RouteBatch(sent(tasks_N, self.device)))
        return checked(self.config, routes_NLE, len(tasks_N))[sent(which_B, self.device)]

    def use_routes(self, source: str, task_routes_NLE: Tensor | None = None) -> None:
        """Changes the source to one that reads no vectors; "fixed": to routes in the order of task names.

        A source with parameters keeps those that the model has.
        """
        size = (len(self.config.task_names), self.config.num_layers, self.config.num_experts)
        kind, is_same = kind_of(source), source == self.config.route_source
        if kind.is_stored != (task_routes_NLE is not None and task_routes_NLE.shape == size):
            raise ValueError(f"only fixed routes take task_routes, of shape (N, L, E) = {size}")
        kept = self.router if is_same and self.task_vectors is None else None
        self.config.route_source = source
        self.config.given_routes, self.config.has_route_vectors = None, False
        if not kind.mixes:
            self.config.expert_mixing = "outputs"
        self.task_vectors, self.router = None, kept or self.new_router()
        if self.router is not None:
            self.router.to(self.device, self.routing_dtype)
        for name in ("task_routes", "route_vectors"):
            if hasattr(self, name):
                delattr(self, name)
        if kind.is_stored:
            self.register_buffer("task_routes", task_routes_NLE.to(self.device, self.routing_dtype))

    def use_table(self, logits_NLE: Tensor) -> None:
        """Changes the routes to the softmax of trained logits, the vectors of a router of no parameters."""
        config = self.config
        self.use_routes("average")
        config.route_source, config.router_nn_type, config.router_mode = "learned", "table", "softmax"
        config.router_temperature, config.exploration_epsilon = 1.0, 0.0
        config.random_vectors = []
        config.set_table_width()
        self.router = ROUTERS["table"](config)
        logits_ND = logits_NLE.detach().flatten(1).to(self.device, self.routing_dtype, copy=True)
        self.task_vectors = TaskVectors.from_pretrained(logits_ND, freeze=False)

    def use_given_routes(self, given: GivenRoutes) -> None:
        """Changes the tasks, their fixed routes, and the vectors that other tasks are routed by, to these."""
        config, vectors_ND = self.config, given.vectors_ND
        routes_NLE = given.matrices(*config.route_sizes)
        config.task_names = given.tasks
        self.use_routes("fixed", torch.from_numpy(routes_NLE))
        config.given_routes, config.random_vectors = given.source, []
        if vectors_ND is not None:
            config.router_input_dim, config.vectors_seen = vectors_ND.shape[1], given.seen
            config.has_route_vectors = True
            vectors_ND = torch.from_numpy(vectors_ND).to(self.device, self.routing_dtype)
            self.register_buffer("route_vectors", vectors_ND)

    def vectors_of_tasks(self) -> np.ndarray | None:
        """Returns the vectors (N, D) float32 that the router reads or of given routes, or None."""
        vectors_ND = self.task_vectors.weight if self.task_vectors else getattr(self, "route_vectors", None)
        return None if vectors_ND is None else vectors_ND.detach().float().cpu().numpy()

    def task_ids(self, task_names: list[str]) -> Tensor:
        """Returns `task_rows`. Warns of tasks that were never trained."""
        config = self.config
        known = config.trained_tasks or set(config.task_names).difference(config.random_vectors)
        if untrained := set(task_names).intersection(config.task_names).difference(known):
            message = "never trained, so that their routes are random, or those of given vectors"
            warnings.warn(
                f"{message}: {in_short(sorted(untrained))}; trained tasks: {in_short(sorted(known))}",
                stacklevel=2,
            )
        return self.task_rows(task_names)

    def task_rows(self, task_names: list[str]) -> Tensor:
        """Returns rows of `config.task_names`, on the model's device. Raises KeyError for an unknown task."""
        rows = {name: row for row, name in enumerate(self.config.task_names)}
        if unknown := [name for name in task_names if name not in rows]:
            raise KeyError(f"no task vector for {', '.join(unknown)}; the model knows {len(rows)} tasks")
        return torch.tensor([rows[name] for name in task_names], dtype=torch.long, device=self.device)

    def routes_for(
        self, task_names: list[str], mode: str | None = None, temperature: float | None = None, noise=False
    ) -> Tensor:
        """Returns the routes (N, L, E) of named tasks. mode, temperature: None: of the configuration."""
        routes_NLE = self.source.of_tasks(self, task_names, mode, temperature, noise)
        return checked(self.config, routes_NLE, len(task_names))

    def _resolve_routes(
        self, routes, task_ids, batch_size: int, skip_weight_check=False, inputs=()
    ) -> Tensor:
        """Returns routes (B, L, E). inputs: their tokens and mask, which routes may depend on.

        skip_weight_check: no check of the weights of given routes: a step would wait for the GPU.
        """
        if batch_size == 0:
            raise ValueError("the batch has no examples")
        is_given = routes is not None
        if routes is None and task_ids is not None:
            routes = self.draw_routes(task_ids, *inputs)
        if routes is None and self.config.num_experts == 1:
            routes = torch.ones(batch_size, self.config.num_layers, 1, device=self.device)
        if routes is None:
            raise ValueError("a model with several experts needs routes (B, L, E) or task_ids (B,)")
        expected = (batch_size, self.config.num_layers, self.config.num_experts)
        if tuple(routes.shape) != expected:
            raise ValueError(f"routes have shape {tuple(routes.shape)}, expected (B, L, E) = {expected}")
        if is_given and not skip_weight_check:
            used = routes.detach()[:, self.config.routed_rows]
            # Less than 1: experts are switched off. bf16 rounds sums. NaN passes: a model may have diverged.
            if (used < 0).any() or (used.sum(dim=-1, dtype=torch.float32) > 1.01).any():
                raise ValueError("each row of routes (B, L, E) must have weights that sum to 1")
        return routes

    def _one_route(self, routes_LE: Tensor | None) -> Tensor:
        """Returns a checked route (L, E). None: of a model with one expert."""
        return self._resolve_routes(None if routes_LE is None else routes_LE[None], None, 1)[0]

    def has_plain_equivalent(self, routes_BLE: Tensor) -> bool:
        """Returns whether each of the routes has an equivalent plain model, which `to_plain` returns."""
        routed = routes_BLE[:, self.config.routed_rows]
        return self.config.has_plain_routes or bool(((routed == 0) | (routed == 1)).all())

    # ---- experts

    def routed_layers(self) -> list:
        """Returns the layers with experts, encoder first."""
        return self.lora_layers

    def expert_distance(self) -> Tensor:
        """Returns the expert regularisation term: `expert_distance` summed over the layers with experts."""
        return sum(layer.expert_distance() for layer in self.routed_layers())

    @torch.no_grad()
    def relative_expert_distance(self) -> float | None:
        """Returns the mean over layers: 0 for equal experts, about 1.4 if independent; None for one."""
        if self.config.num_experts == 1:
            return None
        found = [layer.relative_expert_distance() for layer in self.routed_layers()]
        return sum(found) / len(found)

    # ---- initialisation, loss, saving

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, TaskVectors) and self.config.has_table:  # almost equal weights
            init.uniform_(module.weight, -TABLE_BOUND, TABLE_BOUND)
        elif isinstance(module, TaskVectors):
            init.normal_(module.weight, mean=0.0, std=1.0)
        elif isinstance(module, nn.RNNBase):  # torch's initialisation; transformers uses another for LSTMs
            bound = module.hidden_size**-0.5
            for parameter in module.parameters():
                init.uniform_(parameter, -bound, bound)

    def with_loss(self, run: Callable, inputs: dict, targets_BT: Tensor, positions_K, loss_only):
        """Returns the output of run(**inputs) with the summed loss of the targets, else -100.

        loss_only: whether to project just the targets, at positions_K (None: they are found), and to return
        no logits; None: in training mode.
        """
        smoothing, is_real_BT = self.config.label_smoothing, targets_BT != IGNORED_LABEL
        if self.training if loss_only is None else loss_only:
            if positions_K is None:
                positions_K = is_real_BT.flatten().nonzero()[:, 0]
            with projected_at(self, positions_K):
                logits_KV = run(**inputs).logits
            targets_K = targets_BT.flatten().index_select(0, positions_K)
            return Seq2SeqLMOutput(loss=token_losses(logits_KV, targets_K, smoothing, "sum"))
        outputs = run(**inputs)
        outputs["loss"] = token_losses(outputs.logits[is_real_BT], targets_BT[is_real_BT], smoothing, "sum")
        return outputs

    def save_pretrained(self, save_directory: str | Path, **kwargs) -> None:
        """Saves as transformers does, plus task names and vectors (if any) in the interchange format.

        A base that low-rank experts refer to is not saved. Raises InputError for the folder of the base.
        """
        if kwargs.get("push_to_hub"):  # transformers would upload before all files are there
            raise InputError("save_pretrained does not upload; call model.push_to_hub(name)")
        base = self.config.base_model
        if base is not None and os.path.realpath(base) == final_path(save_directory):
            raise InputError(f"{save_directory} is the base of the experts; name another folder")
        if (stored := stored_tensors(self)) is not None:
            kwargs.setdefault("state_dict", stored)
        base = self.config.base_model  # None if it was trained
        self.config.base_model = place_from(save_directory, base)
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            self.config.base_model = base
        if kwargs.get("is_main_process", True):
            save_task_vectors(save_directory, self.config.task_names, self.vectors_of_tasks())

    def _set_gradient_checkpointing(self, enable=True, gradient_checkpointing_func=checkpoint, **kwargs):
        """Lets repeated layers run along the routes of their first time; see `lora.recomputed`."""
        options = dict(use_reentrant=False)  # a reentrant checkpoint takes no contexts
        if self.lora_layers:
            options["context_fn"] = functools.partial(recomputed, self.lora_layers)
        repeated = functools.partial(gradient_checkpointing_func, **options)
        super()._set_gradient_checkpointing(enable, repeated, **kwargs)
        for layer in self.routed_layers():
            for expert in getattr(layer, "experts", ()):  # repeated with their layer, which merges them
                expert.gradient_checkpointing = False

    def to_adapter(self, routes_LE: Tensor, folder: str | Path, base: str | None = None) -> None:
        """Writes the equivalent adapter of peft of a route to a folder. base: its plain model."""
        routes_LE, folder = self._one_route(routes_LE), Path(folder)
        write_adapter(self, factors_of(self, routes_LE)[0], folder, base or name_of_base(self, folder))
