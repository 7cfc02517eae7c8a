"""Beam search that keeps the encoder's states of an input once for all of its beams.

transformers repeats them, and the keys and values of the cross-attention, for every beam, although they are
equal; for inputs that are longer than the answers, this takes most of the time and memory. Here they have a
row per input, and the queries of an input's beams attend to it together.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, EncoderDecoderCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import BaseModelOutput

from routing_moe.config.choices import ROUTING_BART

SHARING = "sdpa_of_beams"  # the name of `attend` among the library's attention functions


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


def attend(module, query, key, value, attention_mask, **kwargs) -> tuple[Tensor, None]:
    """Returns what "sdpa" does. Queries (B * beams, H, T, d) may have keys and values (B, H, S, d)."""
    B, H, T = len(key), query.shape[1], query.shape[2]
    beams = len(query) // B
    if beams == 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    query = query.unflatten(0, (B, beams)).transpose(1, 2).reshape(B, H, beams * T, -1)
    if attention_mask is not None:
        attention_mask = attention_mask[:: len(attention_mask) // B, :, :1]
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return output.reshape(B * beams, T, H, -1), None


def mask(batch_size: int, *args, attention_mask: Tensor | None = None, **kwargs) -> Tensor | None:
    """Returns the mask of "sdpa" for `batch_size` rows. attention_mask: that of them, or of their beams."""
    if attention_mask is not None:
        attention_mask = attention_mask[:: len(attention_mask) // batch_size]
    return sdpa_mask(batch_size, *args, attention_mask=attention_mask, **kwargs)


AttentionInterface.register(SHARING, attend)
AttentionMaskInterface.register(SHARING, mask)


def shares_sources(model) -> bool:
    """Returns whether the beams of a model can share encoder states: of a BART, plain or with experts."""
    return model.config.model_type in ("bart", ROUTING_BART) and model.config._attn_implementation == "sdpa"


@contextmanager
def beams_share_sources(
    bart, inputs: Tensor | None, kwargs: dict, cache_name: str, known: dict | None = None
) -> Iterator[dict]:
    """Yields `kwargs` of `bart.generate(inputs, ...)` with which beams share encoder states, in the block.

    known: further arguments of the encoder. `kwargs` are not changed if nothing can be shared.
    """
    beams = kwargs.get("num_beams", bart.generation_config.num_beams) or 1
    states, cache = kwargs.get("encoder_outputs"), kwargs.get(cache_name)
    usual = bart.config._attn_implementation
    if (
        beams == 1
        or not shares_sources(bart)
        or inputs is None
        or kwargs.get("attention_mask") is None
        or kwargs.get("use_cache") is False
        or not (states is None or isinstance(states, SourceStates))
        or not (cache is None or isinstance(cache, SourceCache))
        or kwargs.get("return_dict_in_generate")
        or kwargs.get("output_attentions")
    ):
        yield kwargs
        return
    if states is None:
        with torch.no_grad():
            encoded = bart.model.encoder(inputs, attention_mask=kwargs["attention_mask"], **(known or {}))
            states = SourceStates(encoded[0])
    bart.config._attn_implementation = SHARING
    try:
        yield kwargs | {"encoder_outputs": states, cache_name: SourceCache() if cache is None else cache}
    finally:
        bart.config._attn_implementation = usual
