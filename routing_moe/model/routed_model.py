"""RoutedModel: any model of transformers that generates text, with low-rank experts, vectors and a router.

    model = RoutedModel.from_backbone("Qwen/Qwen2.5-0.5B", num_experts=8, task_names=["rte", "boolq"])
    model(input_ids, attention_mask, labels=labels, task_ids=model.task_ids(["rte", "boolq"])).loss.backward()
    plain = model.to_plain(model.routes_for(["rte"])[0])

The model is kept as it is, as `backbone`, with experts in its linear maps (`injection.py`). A backbone is an
encoder-decoder (T5, BART) or decoder-only (Qwen, Llama). What follows from that is the form of a batch only:

    encoder-decoder   input_ids (B, S): inputs;               labels (B, T): answers
    decoder-only      input_ids (B, S): inputs with answers;  labels (B, S): -100 at positions of the input

Decoder-only models are trained with padding at the right, and generate with padding at the left.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
)
from transformers.modeling_outputs import ModelOutput

from dataloader.errors import InputError, problem_context
from routing_moe.io.hub import local_folder
from routing_moe.model.base import (
    empty,
    fill,
    is_of_base,
    is_unchanged,
    load_base,
    refer_to_base,
    saved_tensors,
    train_base,
)
from routing_moe.model.beams import generate_plain
from routing_moe.model.configuration import Mixture, RoutingConfig, check_fields
from routing_moe.model.injection import inject, plain_copy
from routing_moe.model.loading import (
    auto_class,
    check_finite,
    check_not_quantized,
    is_quantized,
    load_backbone,
    own_tensors,
    unfilled_model,
)
from routing_moe.model.lora import LoraPlan, using_routes
from routing_moe.model.loss import with_targets
from routing_moe.model.projection import project_in_float32
from routing_moe.model.task_routing import RoutingModel

# What Auto classes always pass, without an effect here; other arguments are refused.
OF_AUTO = ("_from_auto", "_commit_hash", "adapter_kwargs", "trust_remote_code")
INSTEAD = {"torch_dtype": "give dtype", "device_map": "then use .to(device)"}
WITHOUT_MERGING = "export --as adapter writes one, finetune takes --route_training fixed, vector or logits"
OF_COPIES = ("num_beams", "num_return_sequences")  # settings by which `generate` repeats examples


class RoutedModel(RoutingModel, PreTrainedModel):
    """A model with low-rank experts and the router that mixes them.

    forward(input_ids, attention_mask, labels=..., routes=routes_BLE | task_ids=ids_B) returns a
    label-smoothed loss *summed* over label tokens; without labels it returns the backbone's logits.
    """

    config_class = RoutingConfig
    base_model_prefix = "backbone"
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(self, config: RoutingConfig, backbone: PreTrainedModel | None = None):
        """backbone: the plain model to add experts to; None: one with random weights."""
        super().__init__(config)
        self.backbone = backbone or auto_class(config.backbone).from_config(config.backbone)
        if self.backbone.get_output_embeddings() is None:
            raise InputError(f"{type(self.backbone).__name__} has no language-model head; load it with one")
        config.backbone = self.backbone.config  # the one that the model reads, with its attention
        project_in_float32(self.backbone)
        # In evaluations on some CPUs, bitsandbytes would pack weights, and return no gradients from then on.
        for module in self.backbone.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
        self.lora_layers = inject(self.backbone, config) if config.has_lora else []
        self.add_routing()
        self.post_init()

    @classmethod
    def from_backbone(
        cls,
        backbone: PreTrainedModel | str | Path,
        num_experts: int = 8,
        lora_rank: int = 8,
        lora_targets: str = "attention",
        **config_fields,
    ) -> Self:
        """Returns a model with new experts, which leave the answers of the plain model as they are.

        backbone: a plain model, which becomes a part of this one, or a folder or hub name to load it from.
        Its weights are frozen; `base.train_base` changes that. config_fields: fields of `RoutingConfig`. The
        labels of a decoder-only model are not smoothed unless a field says so. Raises InputError.
        """
        check_fields(config_fields)
        place = None
        if not isinstance(backbone, nn.Module):
            place, backbone = backbone, load_backbone(backbone)
        fields = dict(num_experts=num_experts, lora_rank=lora_rank, lora_targets=lora_targets)
        config = RoutingConfig.of(dict(backbone=backbone.config) | fields | config_fields, "from_backbone")
        model = cls.with_backbone(config, backbone)
        if place is not None and config.has_lora:
            refer_to_base(model, place)
        return model

    @classmethod
    def with_backbone(cls, config: RoutingConfig, backbone: PreTrainedModel) -> Self:
        """Returns a model with new experts of a plain model, which is frozen if they are low-rank ones."""
        model = unfilled_model(cls, config, backbone)
        train_base(model, not (config.has_lora or is_quantized(config)))
        for part in (model.router, model.task_vectors):
            if part is not None:
                part.to(model.routing_dtype)
        return model.to(backbone.device).train(backbone.training)

    @property
    def generation_config(self) -> GenerationConfig:
        """The settings of generation, which are the backbone's."""
        return self.backbone.generation_config

    @generation_config.setter
    def generation_config(self, value: GenerationConfig) -> None:
        self.backbone.generation_config = value

    # ---- forward

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        routes: Tensor | None = None,
        task_ids: Tensor | None = None,
        loss_only: bool | None = None,
        sparse: bool = True,
        constant_zeros: bool = False,
        routes_on_cpu: Tensor | None = None,
        route_groups: Tensor | None = None,
        label_positions: Tensor | None = None,
        **kwargs,
    ) -> ModelOutput:
        """Runs the backbone along routes (B, L, E), or those of `task_ids` (B,).

        labels: -100 at positions to ignore, or padding if there is an encoder. Only the others are projected
        to the vocabulary, unless loss_only is False, or None in eval mode. sparse, constant_zeros,
        routes_on_cpu: as for a routing BART. route_groups: not needed here. label_positions: (K,) of all
        positions (B * T), those that predict a label; None: they are found. kwargs: of the backbone.
        """
        if routes is None and task_ids is not None:
            constant_zeros = self.config.router_mode == "top_k"
        given = input_ids if input_ids is not None else kwargs.get("inputs_embeds")
        batch_size = len(kwargs["encoder_outputs"][0] if given is None else given)
        skip_weight_check = self.training or routes_on_cpu is not None
        mask = attention_mask
        if labels is not None and not self.config.is_encoder_decoder:  # the answer is no part of the input
            mask = (labels == -100) if mask is None else mask * (labels == -100)
        routes = self._resolve_routes(routes, task_ids, batch_size, skip_weight_check, (input_ids, mask))
        inputs = dict(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        with self.using_routes(self.plan_routes(routes, sparse, constant_zeros, routes_on_cpu)):
            if labels is None:
                return self.backbone(**inputs)
            inputs, targets_BT = with_targets(self.backbone, inputs, labels)
            inputs["use_cache"] = False
            return self.with_loss(self.backbone, inputs, targets_BT, label_positions, loss_only)

    def plan_routes(self, routes_BLE: Tensor, *sparseness) -> LoraPlan | None:
        """Returns how the layers run with these routes, or None with one expert."""
        return LoraPlan.of(routes_BLE, *sparseness) if self.config.num_experts > 1 else None

    @contextmanager
    def using_routes(self, plan: LoraPlan | None) -> Iterator[dict]:
        """Lets all calls in the block run along a plan. Yields their further arguments: none."""
        with using_routes(self.lora_layers, plan):
            yield {}

    def get_output_embeddings(self) -> nn.Module:  # the library finds other parts by `base_model_prefix`
        return self.backbone.get_output_embeddings()

    # ---- generation and export

    @torch.no_grad()
    def generate(self, input_ids: Tensor, routes=None, task_ids=None, **kwargs) -> Tensor | ModelOutput:
        """Generates as the backbone does, along routes (B, L, E), which may differ in a batch.

        Returns the answers' tokens only, also of decoder-only models, whose inputs are padded at the left.
        """
        mask = kwargs.get("attention_mask")
        routes = self._resolve_routes(routes, task_ids, len(input_ids), inputs=(input_ids, mask))
        if (routes == routes[:1]).all():
            routes = routes[:1]  # all examples in one product of matrices
        plain, plan = self.backbone, self.plan_routes(routes)
        if plan:
            settings, names = kwargs.get("generation_config") or self.generation_config, OF_COPIES
            copies = max(kwargs.get(name) or getattr(settings, name, None) or 1 for name in names)
            plan = dataclasses.replace(plan, copies=copies)
        # A plain BART takes 5% to 20% less time. To merge a large model may take longer than a short answer,
        # and the hooks of a caller are not for a copy.
        is_bart = self.backbone.config.model_type == "bart"
        if len(routes) == 1 and is_bart and not self.backbone._forward_hooks:
            plain, plan = self.to_plain(routes[0]), None
        if not self.config.is_encoder_decoder and mask is not None and not mask[:, 0].all():
            known = kwargs.pop("logits_processor", None) or []
            kwargs["logits_processor"] = LogitsProcessorList([*known, RefusesNaN()])
        with using_routes(self.lora_layers, plan):
            found = generate_plain(plain, input_ids, **kwargs)
        if self.config.is_encoder_decoder:
            return found
        if isinstance(found, Tensor):
            return found[:, input_ids.shape[1] :]
        found.sequences = found.sequences[:, input_ids.shape[1] :]
        return found

    @torch.no_grad()
    def to_plain(
        self,
        routes_LE: Tensor | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> PreTrainedModel:
        """Returns the equivalent plain model of a route (L, E): merged linear maps, the rest shared.

        None: of a model with one expert. device: where the plain model is, None: where this one is.
        dtype: of the merged linear maps, None: that of the base.
        """
        check_not_quantized(self.config, f"no route can be merged with it; {WITHOUT_MERGING}")
        if not self.lora_layers:
            return self.backbone
        routes_LE = self._one_route(routes_LE).to(self.device)
        return plain_copy(self.backbone, self.lora_layers, routes_LE, device, dtype)

    to_bart = to_plain  # for who made it of a BART

    # ---- saving, loading

    def save_pretrained(self, save_directory: str | Path, **kwargs) -> None:
        """Saves as every routing model does, with the backbone's settings of generation."""
        super().save_pretrained(save_directory, **kwargs)
        if kwargs.get("is_main_process", True):
            self.generation_config.save_pretrained(save_directory)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: RoutingConfig | None = None,
        dtype: torch.dtype | str | None = None,
        revision: str | None = None,
        attn_implementation: str | None = None,
        token: str | None = None,
        **others,
    ) -> Self:
        """Returns a saved model, on the CPU. Raises InputError.

        dtype: of the backbone; None: as saved. token: of the hub, for the base too. others: those of OF_AUTO.
        """
        source = pretrained_model_name_or_path
        given = (name for name, value in others.items() if value is not None and value is not False)
        if refused := next((name for name in given if name not in OF_AUTO), None):
            known = "it takes config, dtype, revision, attn_implementation and token"
            raise InputError(f"{refused}: RoutedModel loads without it; {INSTEAD.get(refused, known)}")
        folder = local_folder(f"{source}@{revision}" if revision else source, token=token)
        saved = Mixture.load(folder)
        if not isinstance(saved, RoutingConfig):
            raise InputError(f"{folder} holds a {saved.model_type!r} model, not one that RoutedModel saved")
        config, saved_type = config or saved, saved.dtype or torch.float32
        config.locate_base(folder)
        # The Auto classes give the attention in the configuration.
        loading = dict(dtype=saved_type)
        loading["attn_implementation"] = attn_implementation or config._attn_implementation
        refers = config.base_model is not None
        backbone = load_base(config, token, **loading) if refers else empty(config.backbone, **loading)
        model = cls.with_backbone(config, backbone)
        check_finite(state := saved_tensors(folder), folder)
        with problem_context(f"{folder}: "):
            fill(model, state, lambda name: not (refers and is_of_base(name)))
        if refers and not is_unchanged(model):
            problem = "not the model that the experts were trained on: its weights have another checksum"
            raise InputError(f"{config.base_model}: {problem}")
        if dtype not in (None, "auto", saved_type):
            dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
            for name, tensor in own_tensors(model).items():
                kind = dtype if is_of_base(name) else torch.promote_types(dtype, torch.float32)
                tensor.data = tensor.data.to(kind) if tensor.is_floating_point() else tensor.data
        model.generation_config = GenerationConfig.from_pretrained(folder)
        return model.eval()


class RefusesNaN(LogitsProcessor):
    """Raises InputError if the first predictions are NaN, as those of Gemma 2 in float64 after padding."""

    checked = False

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        was_checked, self.checked = self.checked, True
        if not was_checked and scores.isnan().any():
            raise InputError(
                "the backbone predicts NaN after padding at the left: load it in float32 or bfloat16, or "
                "give it inputs of the same length"
            )
        return scores


AutoConfig.register(RoutingConfig.model_type, RoutingConfig, exist_ok=True)
for auto in (AutoModelForSeq2SeqLM, AutoModelForCausalLM):
    auto.register(RoutingConfig, RoutedModel, exist_ok=True)
