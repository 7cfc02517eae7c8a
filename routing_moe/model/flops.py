"""Parameters and training FLOPs of a (routing) BART, from its configuration and the lengths of an example.

FLOPs are those of the matrix products, 2 * m * n * k for (m, k) times (k, n), as torch's `FlopCounterMode`
counts them: projections, attention (scores and weighted sum, masked positions included), feed-forward
layers, the vocabulary projection of the real target positions, the router. The backward pass of a product
costs one product of the same size for each of its two factors that needs a gradient. Merging parameters is
also counted (a multiplication and an addition per parameter and expert), although torch's counter omits it
like all elementwise operations.

Not counted: other elementwise operations (norms, activations, weighting of outputs, dropout), the loss,
expert regularisation, the optimizer, evaluations, recomputation in the backward pass of flash attention,
pre-training and task vectors except gradients (`mean_gradient`). An expert whose soft weight rounds to 0
counts as run.

Parameters: tied token embeddings count once; all rows of tokens and positions count. Active parameters are
those that process an example: embeddings, vanilla layers, and in every routed layer the experts with a weight
above 0 in a route. Their number per layer is 1 for straight-through and random routes and for merged
parameters (E are merged into 1), k for top-k, n for task-level random routes with n of E experts, and E for
softmax, Gumbel-softmax and average. Router and task vectors are not active, because a task's route is
computed once, not for each example. The FLOPs include experts that run in training only (the unselected
experts of straight-through routes). Of low-rank experts, all layers of the BART that they share are active.

Lengths may be numbers or arrays: S source and T target tokens, padding included, and K real target tokens.
All results are for one example. D is the model width, E the number of experts of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from routing_moe.model.lora import is_of_expert, runs_few
from routing_moe.model.routers import ROUTERS, TRANSFORMER_FFN_DIM

ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")  # of BART
FEED_FORWARD = ("fc1", "fc2")
TARGETS = {"attention": ATTENTION, "feed_forward": FEED_FORWARD, "all": ATTENTION + FEED_FORWARD}

GATES = {"rnn": 1, "lstm": 4, "gru": 3}

# A product is (FLOPs, whether the first factor needs a gradient, whether the second does).
Product = tuple


@dataclass(frozen=True)
class Work:
    """The trained parts of a model, which determine the cost of the backward pass of a step.

    used: experts of a layer with a weight above 0 in a route. layers: whether BART layers are trained;
    updates: whether low-rank experts are. inputs: whether the embeddings or their norm are trained.
    projection: whether the vocabulary projection, which is the token embedding, is.
    """

    used: float = 1
    layers: bool = True
    updates: bool = False
    inputs: bool = True
    projection: bool = True
    router: bool = True
    vectors: bool = True

    @classmethod
    def of(cls, model) -> Work:
        """Returns the Work of a routing BART, from the `requires_grad` of its parameters."""
        bart, has_router = model.model, model.config.has_router
        before = (bart.shared, bart.encoder.embed_positions, bart.encoder.layernorm_embedding)
        drawn = None
        if model.config.route_source == "fixed":
            drawn = float((model.task_routes[:, model.config.routed_rows] > 0).sum(-1).float().mean())
        of_layers = [p for side in (bart.encoder, bart.decoder) for p in side.layers.named_parameters()]
        return cls(
            used=experts_used(model.config, drawn),
            layers=any(p.requires_grad for name, p in of_layers if not is_of_expert(name)),
            updates=any(p.requires_grad for name, p in of_layers if is_of_expert(name)),
            inputs=_trains(*before),
            projection=model.lm_head.weight.requires_grad,
            router=has_router and _trains(model.router),
            vectors=has_router and _trains(model.task_vectors),
        )

    def without(self, frozen: frozenset[str] | set[str]) -> Work:
        """Returns the Work of a step in which some parts (`step.part_of`) are frozen."""
        parts_of = {"bart": ("layers", "updates", "inputs", "projection")}
        return replace(self, **{part: False for name in frozen for part in parts_of.get(name, (name,))})

    @property
    def routes(self) -> bool:
        """Whether routes need a gradient."""
        return self.router or self.vectors


def _trains(*modules) -> bool:
    return any(p.requires_grad for module in modules for p in module.parameters())


def experts_used(config, drawn: float | None = None) -> float:
    """Returns the number of experts of a layer with a weight above 0 in a route.

    drawn: this number for fixed routes; without it, ValueError is raised for them.
    """
    E = getattr(config, "num_experts", 1)
    if E == 1 or config.expert_mixing == "parameters" or config.route_source == "random":
        return 1
    if config.route_source == "fixed":
        if drawn is None:
            raise ValueError("the number of experts of fixed routes is not part of the configuration")
        return drawn
    if config.route_source == "learned" and config.router_mode == "gumbel_softmax_st":
        return 1
    return config.router_top_k if config.route_source == "learned" and config.router_mode == "top_k" else E


# ---- parameters


def total_parameters(config) -> int:
    """Returns the number of all parameters, including router and task vectors."""
    return sum(parameters_of_parts(config).values())


def parameters_of_parts(config) -> dict[str, int]:
    """Returns the numbers of parameters of the parts of a model that may be frozen.

    These are embeddings (of tokens and positions, with their norms), layers, updates (low-rank experts),
    router and vectors.
    """
    E = getattr(config, "num_experts", 1)
    copies = 1 if _has_lora(config) else E
    layers = sum(size * (copies if is_routed else 1) for size, is_routed in _layers(config))
    parts = {"embeddings": _embedding_parameters(config), "layers": layers}
    if _has_lora(config):
        parts["updates"] = E * _update_parameters(config)
    if getattr(config, "has_router", False):
        with torch.device("meta"):
            router = ROUTERS[config.router_nn_type](config)
        parts["router"] = sum(p.numel() for p in router.parameters())
        parts["vectors"] = len(config.task_names) * config.router_input_dim
    return parts


def active_parameters(config, used: float) -> int:
    """Returns the number of parameters that process an example (see above). used: as in `Work`."""
    copies = 1 if _has_lora(config) else used
    layers = sum(size * (copies if is_routed else 1) for size, is_routed in _layers(config))
    updates = used * _update_parameters(config) if _has_lora(config) else 0
    return round(_embedding_parameters(config) + layers + updates)


def _has_lora(config) -> bool:
    return getattr(config, "has_lora", False)


def _update_parameters(config) -> int:
    """Returns the number of parameters of one low-rank expert of every layer."""
    D, targets = config.d_model, TARGETS[config.lora_targets]
    attention = sum(name in targets for name in ATTENTION) * 2 * D
    ends = 0
    for row in config.routed_layers:
        of_encoder = row < config.encoder_layers
        width = config.encoder_ffn_dim if of_encoder else config.decoder_ffn_dim
        ends += attention * (1 if of_encoder else 2)
        ends += sum(name in targets for name in FEED_FORWARD) * (D + width)
    return config.lora_rank * ends


def _embedding_parameters(config) -> int:
    """Returns the number of parameters of the embeddings and their norms, of encoder and decoder.

    BART has embeddings of two positions that it does not use.
    """
    positions = config.max_position_embeddings + 2
    return (config.vocab_size + 2 * positions + 2 * 2) * config.d_model


def _layers(config) -> list[tuple[int, bool]]:
    """Returns (parameters, whether the layer is routed and exists E times) of each layer, encoder first."""
    D, routed = config.d_model, set(getattr(config, "routed_layers", ()))
    attention, norm = 4 * (D * D + D), 2 * D
    encoder = attention + norm * 2 + _ffn_parameters(D, config.encoder_ffn_dim)
    decoder = 2 * attention + norm * 3 + _ffn_parameters(D, config.decoder_ffn_dim)
    sizes = [encoder] * config.encoder_layers + [decoder] * config.decoder_layers
    return [(size, row in routed) for row, size in enumerate(sizes)]


def _ffn_parameters(D: int, F: int) -> int:
    return 2 * D * F + F + D


# ---- FLOPs


def example_flops(config, work: Work, S, T, K):
    """Returns the FLOPs of an example, forward and backward, without routing and merging."""
    runs, forward_only = experts_run(config, work)
    merges = getattr(config, "expert_mixing", "outputs") == "parameters"
    total, states = 0, work.inputs  # whether hidden states need a gradient
    encoder_states = None
    for row, (_, is_routed) in enumerate(_layers(config)):
        if row == config.encoder_layers:
            encoder_states, states = states, work.inputs
        trained = work.layers or (is_routed and merges and work.routes)
        maps = Maps.of(config, work, trained) if is_routed and _has_lora(config) else Maps(trained)
        if row < config.encoder_layers:
            products = _attention(config.d_model, S, S, maps, states, states)
            states = states or maps.pass_gradient("q_proj")
            products += _feed_forward(config.d_model, config.encoder_ffn_dim, S, maps, states)
        else:
            products = _attention(config.d_model, T, T, maps, states, states)
            states = states or maps.pass_gradient("q_proj")
            products += _attention(config.d_model, T, S, maps, states, encoder_states)
            states = states or encoder_states
            products += _feed_forward(config.d_model, config.decoder_ffn_dim, T, maps, states)
        states = states or maps.pass_gradient("fc1")
        if is_routed:
            total = total + runs * _both(products) + forward_only * _forward(products)
            states = states or work.routes
        else:
            total = total + _both(products)
    return total + _both([(2 * K * config.d_model * config.vocab_size, work.projection, states)])


FORWARD = Work(layers=False, inputs=False, projection=False)


def rows_flops(config, examples) -> int:
    """Returns the FLOPs of a forward pass of all examples (without padding) along a one-hot route."""
    S, T = examples.source_lengths_N.astype(float), examples.target_lengths_N.astype(float)
    return round(float(example_flops(config.to_bart_config(), FORWARD, S, T, T).sum()))


def experts_run(config, work: Work) -> tuple[float, float]:
    """Returns (experts of a routed layer that run forward and backward, experts that run forward only).

    Means over examples, because exploration replaces some of the routes' rows by a single expert. Experts of
    weight 0 run forward if the gradient of the routes is needed; those outside the top k do not run
    (`routed_layer.RoutePlan`).
    """
    E = getattr(config, "num_experts", 1)
    if E == 1 or config.has_plain_routes:
        return 1, 0
    explored = config.exploration_epsilon if config.route_source == "learned" else 0
    runs = (1 - explored) * work.used + explored
    return runs, E - runs if work.routes and config.router_mode != "top_k" else 0


def merging_flops(config, work: Work) -> int:
    """Returns the FLOPs of merging all routed layers, per task of a micro-batch; 0 if outputs are mixed.

    Forward 2 per parameter and expert; backward 1 for the expert's gradient, 2 for that of its weight.
    """
    if getattr(config, "num_experts", 1) == 1 or config.expert_mixing != "parameters":
        return 0
    per_parameter = 2 + work.layers + 2 * work.routes
    return sum(size for size, is_routed in _layers(config) if is_routed) * config.num_experts * per_parameter


def router_flops(config, work: Work) -> int:
    """Returns the FLOPs of one route from one task vector, forward and backward; 0 without a router."""
    if not getattr(config, "has_router", False):
        return 0
    D, H, L, E = config.router_input_dim, config.router_hidden_dim, config.num_layers, config.num_experts
    router, vectors, inner = work.router, work.vectors, work.routes
    name = config.router_nn_type
    if name == "table":
        return 0
    if name == "linear":
        return _both([(2 * D * H, router, vectors), (2 * H * L * E, router, inner)])
    if name == "linear_layer_specific":
        return _both([(2 * L * D * H, router, vectors), (2 * L * H * E, router, inner)])
    is_specific = name.endswith("_layer_specific")
    products = [(2 * L * D * H, router, vectors)] if is_specific else []
    width, kind = H if is_specific else D, name.removesuffix("_layer_specific")
    if kind == "transformer":
        products += _attention(width, L, L, Maps(router), inner, inner)
        products += _feed_forward(width, TRANSFORMER_FFN_DIM, L, Maps(router), inner)
        mixed = width
    else:
        per_position = 2 * 2 * GATES[kind] * H  # both directions; the first state is a constant
        products += [(per_position * L * width, router, inner), (per_position * H, router, False)]
        products.append((per_position * (L - 1) * H, router, inner))
        mixed = 2 * H
    return _both([*products, (2 * L * mixed * E, router, inner)])


@dataclass(frozen=True)
class Maps:
    """The linear maps of a layer.

    trained: whether their weights are. columns: of the low-rank updates, all experts that run together; 0
    without updates. mixed: experts of which factors are mixed. updates, routes: whether updates and the
    gradient of routes are trained. targets: the names of the maps with updates.
    """

    trained: bool
    columns: float = 0
    rank: int = 0
    mixed: float = 0
    updates: bool = False
    routes: bool = False
    targets: tuple[str, ...] = ()

    @classmethod
    def of(cls, config, work: Work, trained: bool) -> Maps:
        """Returns the maps of a layer with low-rank experts (`lora.LoraPlan`)."""
        E, r, used = config.num_experts, config.lora_rank, work.used
        needs_all = work.routes and config.router_mode != "top_k"
        run = used if runs_few(used, E) and not needs_all else E
        mixes = config.lora_mixing == "factors" and E > 1
        routes = work.routes and E > 1
        targets = TARGETS[config.lora_targets]
        return cls(trained, r if mixes else run * r, r, run if mixes else 0, work.updates, routes, targets)

    def pass_gradient(self, name: str) -> bool:
        """Returns whether a map's output has a gradient for its own weights or for routes.

        Of the maps of attention all have updates or none, and so do those of the feed-forward part.
        """
        return self.trained or (name in self.targets and (self.updates or self.routes))

    def products(self, name: str, tokens, D_in: int, D_out: int, states: bool) -> list[Product]:
        """Returns the products of a map. states: whether its input needs a gradient."""
        found = [(2 * tokens * D_in * D_out, self.trained, states)]
        if name not in self.targets:
            return found
        factors, inner = self.updates, self.updates or self.routes
        if self.mixed:
            per_row = 2 * self.mixed * self.rank
            found += [(per_row * D_in, factors, self.routes), (per_row * D_out, factors, self.routes)]
            factors = inner
        found.append((2 * tokens * D_in * self.columns, factors, states))
        found.append((2 * tokens * self.columns * D_out, factors, inner or states))
        return found


def _attention(D: int, queries, keys, maps: Maps, query_states: bool, key_states: bool) -> list[Product]:
    """Returns the products of multi-head attention.

    query_states, key_states: whether these need a gradient.
    """
    trains = maps.pass_gradient("q_proj")
    q, k = trains or query_states, trains or key_states
    return [
        *maps.products("q_proj", queries, D, D, query_states),
        *maps.products("k_proj", keys, D, D, key_states),
        *maps.products("v_proj", keys, D, D, key_states),
        (2 * queries * keys * D, q, k),
        (2 * queries * keys * D, q or k, k),
        *maps.products("out_proj", queries, D, D, q or k),
    ]


def _feed_forward(D: int, F: int, tokens, maps: Maps, states: bool) -> list[Product]:
    inner = states or maps.pass_gradient("fc1")
    return [*maps.products("fc1", tokens, D, F, states), *maps.products("fc2", tokens, F, D, inner)]


def _forward(products: list[Product]):
    return sum(flops for flops, _, _ in products)


def _both(products: list[Product]):
    return sum(flops * (1 + one + other) for flops, one, other in products)
