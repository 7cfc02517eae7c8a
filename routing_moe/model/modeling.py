"""RoutingBartForConditionalGeneration: BART with experts, task vectors and a router.

The forward pass of transformers is not copied: its layers pass extra keyword tensors on, so a `RoutedLayer`
in the place of a BART layer receives the routes. The model itself needs only routes (B, L, E); with
`task_ids`, it computes them by its router.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM, BartForConditionalGeneration, EncoderDecoderCache
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.models.bart.modeling_bart import BartDecoderLayer, BartEncoderLayer

from routing_moe.model.beams import CACHE_ARGUMENT, SourceCache, beams_share_sources, generate_plain
from routing_moe.model.configuration import RoutingBartConfig, RoutingConfig
from routing_moe.model.conversion import assemble_bart, from_bart
from routing_moe.model.loss import with_targets
from routing_moe.model.projection import project_in_float32
from routing_moe.model.published import PublishedMixture
from routing_moe.model.routed_layer import RoutedLayer, RoutePlan
from routing_moe.model.routed_model import RoutedModel
from routing_moe.model.task_routing import RoutingModel

# Arguments of `generate` with which a batch is not divided by routes.
OF_BATCH = ("encoder_outputs", "prefix_allowed_tokens_fn", "logits_processor", "return_dict_in_generate")
OF_DOWNLOAD = ("revision", "subfolder", "token", "cache_dir", "local_files_only", "force_download")


class RoutingBartForConditionalGeneration(RoutingModel, BartForConditionalGeneration):
    """A BART whose layers consist of experts, with the router that selects them.

    forward(input_ids, attention_mask, labels=..., routes=routes_BLE | task_ids=ids_B) returns a
    label-smoothed loss *summed* over label tokens. In training mode only real target positions are projected
    to the vocabulary, and `logits` is None; in eval mode `logits` is returned as usual.
    """

    config_class = RoutingBartConfig
    _supports_flex_attn = False  # its block masks cannot be indexed by an expert's examples

    def __init__(self, config: RoutingBartConfig):
        super().__init__(config)
        self._add_layers_as_experts()
        project_in_float32(self)
        self.add_routing()
        self.post_init()

    def _add_layers_as_experts(self) -> None:
        config, E = self.config, self.config.num_experts
        for i, stock in enumerate(self.model.encoder.layers):
            if i not in config.encoder_vanilla_layers:
                experts = [stock] + [BartEncoderLayer(config, layer_idx=i) for _ in range(E - 1)]
                self.model.encoder.layers[i] = RoutedLayer(config, experts, row=i, is_decoder=False)
        for i in range(config.decoder_layers):
            # Expert e of layer i has cache slot i * E + e; a vanilla layer uses the first of its E slots.
            copies = [BartDecoderLayer(config, layer_idx=i * E + e) for e in range(E)]
            is_vanilla = i in config.decoder_vanilla_layers
            row = config.encoder_layers + i
            layer = copies[0] if is_vanilla else RoutedLayer(config, copies, row, is_decoder=True)
            self.model.decoder.layers[i] = layer

    # ---- forward

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs=None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        routes: Tensor | None = None,
        task_ids: Tensor | None = None,
        sparse: bool = True,
        loss_only: bool | None = None,
        route_groups: Tensor | None = None,
        constant_zeros: bool = False,
        routes_on_cpu: Tensor | None = None,
        label_positions: Tensor | None = None,
        **kwargs,
    ) -> Seq2SeqLMOutput:
        """Runs BART's forward pass through the routed layers.

        routes: (B, L, E), or task_ids: (B,) rows of `config.task_names`. labels: (B, T) with -100 or the
        padding token at positions to ignore. sparse: False runs every expert on every example, which is
        slower and gives the same results. loss_only: whether to omit the logits; None: in training mode only.
        route_groups: (B,) numbers that are equal for examples with the same route and route gradient, used if
        parameters are mixed. constant_zeros: with given routes, do not compute the gradient of weights that
        are zero. On a GPU, a caller that gives the following saves waiting for it. routes_on_cpu: a copy of
        `routes`. label_positions: (K,) positions in the flattened labels that are not to be ignored.
        """
        kwargs.pop("return_dict", None)  # an output object is always returned
        if self.config.num_experts > 1:
            for name in ("output_hidden_states", "output_attentions"):
                if kwargs.get(name, getattr(self.config, name, False)):
                    raise ValueError(
                        f"{name}: they would be those of experts; give those of a route's to_bart()"
                    )
        use_cache = bool(use_cache) and labels is None
        if use_cache and kwargs.get(CACHE_ARGUMENT) is None:
            kwargs[CACHE_ARGUMENT] = SourceCache()
        states = encoder_outputs and encoder_outputs[0]
        inputs = (input_ids, kwargs.get("inputs_embeds"), decoder_input_ids, states)
        batch_size = next(len(tensor) for tensor in inputs if tensor is not None)
        if routes is None and task_ids is not None:
            route_groups = task_ids if self.source.per_task else None
            constant_zeros = self.config.router_mode == "top_k"
        skip_weight_check = self.training or use_cache or routes_on_cpu is not None
        read = input_ids, attention_mask
        routes = self._resolve_routes(routes, task_ids, batch_size, skip_weight_check, read)
        plan = self.plan_routes(routes, sparse, use_cache, route_groups, constant_zeros, routes_on_cpu)
        inputs = dict(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            use_cache=use_cache,
            route_plan=plan,
            **kwargs,
        )
        if labels is None:
            return super().forward(**inputs)
        inputs, targets_BT = with_targets(self, inputs, labels)
        return self.with_loss(super().forward, inputs, targets_BT, label_positions, loss_only)

    @contextmanager
    def using_routes(self, plan: RoutePlan | None) -> Iterator[dict]:
        """Yields the arguments of encoder and decoder with which they run along a plan in the block."""
        yield {"route_plan": plan}

    def plan_routes(
        self,
        routes_BLE: Tensor,
        sparse=True,
        use_cache=False,
        route_groups=None,
        constant_zeros=False,
        routes_on_cpu=None,
    ) -> RoutePlan | None:
        """Returns how the layers run with these routes, None with one expert. Arguments as of `forward`."""
        if self.config.num_experts == 1:
            return None
        if self.config.expert_mixing == "parameters":
            plan = RoutePlan.merging(routes_BLE, route_groups, routes_on_cpu)
            if use_cache and len(plan.merged.sizes) > 1:  # a cache cannot be indexed by examples
                raise ValueError("with a cache, merged parameters need the same route for the whole batch")
            return plan
        # An expert that skipped a token has no cache entry for it, so with a cache every expert runs.
        if sparse and not use_cache:
            return RoutePlan.sparse(routes_BLE, constant_zeros, routes_on_cpu)
        return RoutePlan(routes_BLE)

    # ---- generation

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, routes=None, task_ids=None, **kwargs):
        """Generates as BART does, with `routes` (B, L, E) or `task_ids` (B,), which may differ in a batch.

        One-hot routes and merged parameters are decoded by the equivalent plain BART of each different route.
        Other routes, and more than 2 E different ones, are decoded together with one cache per expert, at the
        cost of E decoders.
        """
        inputs = kwargs.pop("input_ids", None) if inputs is None else inputs
        batch_size = len(inputs) if inputs is not None else len(kwargs["encoder_outputs"][0])
        read = inputs, kwargs.get("attention_mask")
        routes = self._resolve_routes(routes, task_ids, batch_size, inputs=read)
        if self.has_plain_equivalent(routes):
            rows = self.config.routed_rows or [0]
            which_B = routes[:, rows].flatten(1).unique(dim=0, return_inverse=True)[1]
            distinct = int(which_B.max()) + 1
            if distinct == 1 and "encoder_outputs" not in kwargs:
                return generate_plain(self.to_bart(routes[0]), inputs, **kwargs)
            merges = self.config.expert_mixing == "parameters"
            few = distinct <= 2 * self.config.num_experts
            can_split = inputs is not None and not any(kwargs.get(name) for name in OF_BATCH)
            if can_split and (merges or few):
                return self._generate_by_route(inputs, routes, which_B, kwargs)
            if merges and distinct > 1:
                kwargs["use_cache"] = False

        kwargs["routes"] = routes
        known = {"route_plan": self.plan_routes(routes)}
        with beams_share_sources(self, inputs, kwargs, known) as shared:
            return super().generate(inputs, **shared)

    def _generate_by_route(self, inputs: Tensor, routes: Tensor, which_B: Tensor, kwargs: dict) -> Tensor:
        """Generates with the plain BART of each different route for the examples that have this route."""
        sequences: list[Tensor | None] = [None] * len(inputs)
        for route in which_B.unique():
            members = (which_B == route).nonzero()[:, 0]
            of_members = dict(kwargs)
            for name, value in kwargs.items():
                if isinstance(value, Tensor) and value.dim() and len(value) == len(inputs):
                    of_members[name] = value[members]
            generated = generate_plain(self.to_bart(routes[members[0]]), inputs[members], **of_members)
            parts = generated.split(len(generated) // len(members))
            for i, rows in zip(members.tolist(), parts, strict=True):
                sequences[i] = rows
        flat = [row for rows in sequences for row in rows]
        return nn.utils.rnn.pad_sequence(flat, batch_first=True, padding_value=self.config.pad_token_id)

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, *args, **kwargs):
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)
        # The cache of transformers has one slot per layer; ours needs one per expert and grows on demand.
        if isinstance(model_kwargs.get(CACHE_ARGUMENT), EncoderDecoderCache):
            model_kwargs[CACHE_ARGUMENT] = SourceCache()

    def to_bart(self, routes_LE: Tensor | None = None) -> BartForConditionalGeneration:
        """Returns the plain BART of a route (L, E); None: of a model with one expert.

        Its answers are those of the mixture only if `has_plain_equivalent(route)`: of a route that mixes the
        outputs of experts, it has the expert of largest weight in each layer.
        """
        return assemble_bart(self, self._one_route(routes_LE))

    def to_plain(self, routes_LE: Tensor | None = None, device=None, dtype=None):
        """Returns `to_bart`. device, dtype: those of this model, whose tensors are not copied."""
        return self.to_bart(routes_LE)

    # ---- experts, saving, loading

    def routed_layers(self) -> list[RoutedLayer]:
        """Returns the layers with experts, encoder first."""
        layers = [*self.model.encoder.layers, *self.model.decoder.layers]
        return [layer for layer in layers if isinstance(layer, RoutedLayer)]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, config=None, **kwargs):
        """Loads as transformers does. Returns a `RoutedModel` if the experts are of low rank."""
        source = pretrained_model_name_or_path
        if config is None:
            where = {name: kwargs[name] for name in OF_DOWNLOAD if name in kwargs}
            config = AutoConfig.from_pretrained(source, **where)
        if isinstance(config, RoutingConfig):
            return RoutedModel.from_pretrained(source, config=config, **kwargs)
        return super().from_pretrained(source, *args, config=config, **kwargs)

    @classmethod
    def from_bart(cls, bart, num_experts: int = 3, init_eps: float = 1e-8, **config_fields):
        """Returns a model whose experts are copies of a BART's layers; see `conversion.from_bart`."""
        return from_bart(cls, bart, num_experts, init_eps, **config_fields)

    @classmethod
    def from_upstream(cls, run_dir: str | Path, checkpoint_name: str = "best"):
        """Returns the model of a run of the published code in eval mode. Raises InputError."""
        return PublishedMixture(cls, Path(run_dir, checkpoint_name)).load()


AutoConfig.register(RoutingBartConfig.model_type, RoutingBartConfig, exist_ok=True)
AutoModelForSeq2SeqLM.register(RoutingBartConfig, RoutingBartForConditionalGeneration, exist_ok=True)
