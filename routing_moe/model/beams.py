"""Beam search that keeps the encoder's states of an input once for all of its beams.

transformers repeats them, and the keys and values of the cross-attention, for every beam, although they are
equal; for inputs that are longer than the answers, this takes most of the time and memory. Here they have a
row per input, and the queries of an input's beams attend to it together. This needs no code of a model: its
decoder attends by another function of the library's table, and caches in another cache.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    BartForConditionalGeneration,
    DynamicCache,
    EncoderDecoderCache,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import BaseModelOutput

SHARING = "sdpa_of_beams"  # the name of `attend` among the library's attention functions
CANNOT_SHARE = ("umt5",)  # model types whose attention gives keys the rows of queries
# transformers renamed its cache argument once; this is the name in the installed version.
_FORWARD_ARGUMENTS = inspect.signature(BartForConditionalGeneration.forward).parameters
CACHE_ARGUMENT = "cache" if "cache" in _FORWARD_ARGUMENTS else "past_key_values"


class SourceStates(BaseModelOutput):
    """Encoder outputs that `generate` does not repeat for every beam, because it iterates over no tensors."""

    def __iter__(self):
        return iter(())


class SourceCache(EncoderDecoderCache):
    """A cache that grows on demand, and does not reorder what is equal for all beams of an input."""

    def __init__(self):
        super().__init__(DynamicCache(), DynamicCache())

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.self_attention_cache.reorder_cache(beam_idx)


def attend(module, query, key, value, attention_mask, position_bias=None, **kwargs) -> tuple[Tensor, None]:
    """Returns what "sdpa" does. Queries (B * beams, H, T, d) may have keys and values (B, H, S, d).

    position_bias: (1, H, T, S), that of a T5.
    """
    B, H, T = len(key), query.shape[1], query.shape[2]
    beams = len(query) // B
    if beams > 1:
        query = query.unflatten(0, (B, beams)).transpose(1, 2).reshape(B, H, beams * T, -1)
        if attention_mask is not None:
            attention_mask = attention_mask[:: len(attention_mask) // B, :, :1]
        if position_bias is not None and T > 1:
            position_bias = position_bias.repeat(1, 1, beams, 1)
    kwargs["position_bias"] = position_bias
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return output.reshape(B * beams, T, H, -1), None


def mask(batch_size: int, *args, attention_mask: Tensor | None = None, **kwargs) -> Tensor | None:
    """Returns the mask of "sdpa" for `batch_size` rows. attention_mask: that of them, or of their beams."""
    if attention_mask is not None:
        attention_mask = attention_mask[:: len(attention_mask) // batch_size]
    return sdpa_mask(batch_size, *args, attention_mask=attention_mask, **kwargs)


AttentionInterface.register(SHARING, attend)
AttentionMaskInterface.register(SHARING, mask)


def decoder_configs(model: PreTrainedModel) -> list[PreTrainedConfig]:
    """Returns the configurations that a decoder's parts read: one, which is the model's or a copy of it."""
    configs = (getattr(part, "config", None) for part in model.get_decoder().modules())
    return list({id(config): config for config in configs if config is not None}.values())


def shares_sources(model: PreTrainedModel) -> bool:
    """Returns whether the beams of a model with an encoder, plain or with experts, can share its states."""
    plain = getattr(model, "backbone", model)
    if not plain.config.is_encoder_decoder or plain.config.model_type in CANNOT_SHARE:
        return False
    usual_cache = getattr(plain.generation_config, "cache_implementation", None) is None
    return usual_cache and all(c._attn_implementation == "sdpa" for c in decoder_configs(plain))


@contextmanager
def beams_share_sources(
    model: PreTrainedModel, inputs: Tensor | None, kwargs: dict, known: dict | None = None
) -> Iterator[dict]:
    """Yields `kwargs` of `model.generate(inputs, ...)` with which beams share encoder states, in the block.

    known: further arguments of the encoder. `kwargs` are not changed if nothing can be shared.
    """
    beams = kwargs.get("num_beams", model.generation_config.num_beams) or 1
    states, cache = kwargs.get("encoder_outputs"), kwargs.get(CACHE_ARGUMENT)
    if (
        beams == 1
        or not shares_sources(model)
        or inputs is None
        or kwargs.get("attention_mask") is None
        or kwargs.get("use_cache") is False
        or kwargs.get("cache_implementation")
        or not (states is None or isinstance(states, SourceStates))
        or not (cache is None or isinstance(cache, SourceCache))
        or kwargs.get("return_dict_in_generate")
        or kwargs.get("output_attentions")
    ):
        yield kwargs
        return
    if states is None:
        with torch.no_grad():
            encoded = model.get_encoder()(inputs, attention_mask=kwargs["attention_mask"], **(known or {}))
            states = SourceStates(encoded[0])
    configs = decoder_configs(model)
    try:
        for config in configs:
            config._attn_implementation = SHARING
        yield kwargs | {"encoder_outputs": states, CACHE_ARGUMENT: SourceCache() if cache is None else cache}
    finally:
        for config in configs:
            config._attn_implementation = "sdpa"


@torch.no_grad()
def generate_plain(model: PreTrainedModel, inputs: Tensor | None = None, **kwargs):
    """Returns `model.generate(inputs, ...)` of a plain model, whose beams share encoder states."""
    inputs = kwargs.pop("input_ids", None) if inputs is None else inputs
    with beams_share_sources(model, inputs, kwargs) as shared:
        return model.generate(inputs, **shared)
