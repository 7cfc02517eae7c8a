"""The loss of answers: one function for training, losses of dev files, and the ranking of options.

`token_losses` is the loss; everything else here says of which tokens. K target tokens of B examples.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from dataloader.encoded import IGNORED_LABEL


def token_losses(logits_KV: Tensor, targets_K: Tensor, label_smoothing=0.0, reduction="none") -> Tensor:
    """Returns label-smoothed cross-entropies (K,) in nats, or their "sum", in float32 or better."""
    logits_KV = logits_KV.to(torch.promote_types(logits_KV.dtype, torch.float32))
    return F.cross_entropy(logits_KV, targets_K, reduction=reduction, label_smoothing=label_smoothing)


def example_losses(
    model, inputs: dict, targets_BT: Tensor, smoothings: Sequence[float] = (0.0,), routes_BLE=None
) -> Tensor:
    """Returns the summed losses (len(smoothings), B) of each example's targets, in float32 or better.

    inputs: complete ones of the model. The state at a position predicts its token, or -100: none.
    """
    known = {"use_cache": False} | inputs | ({} if routes_BLE is None else {"routes": routes_BLE})
    if isinstance(known.get("encoder_outputs"), Tensor):
        known["encoder_outputs"] = BaseModelOutput(known["encoder_outputs"])
    is_real_BT = targets_BT != IGNORED_LABEL
    with projected_at(model, is_real_BT.flatten().nonzero()[:, 0]):
        logits_KV = model(**known).logits
    losses = [token_losses(logits_KV, targets_BT[is_real_BT], smoothing) for smoothing in smoothings]
    zeros_BT = losses[0].new_zeros(targets_BT.shape)  # index_add would add in varying order on a GPU
    return torch.stack([zeros_BT.masked_scatter(is_real_BT, of_K).sum(dim=1) for of_K in losses])


def with_targets(model: PreTrainedModel, inputs: dict, labels: Tensor) -> tuple[dict, Tensor]:
    """Returns the inputs of a model, and the token to predict at each position (-100: none).

    `decoder_input_ids` stay if there are some.
    """
    model = getattr(model, "backbone", model)
    if not model.config.is_encoder_decoder:  # the state at a position predicts the next token
        return inputs, F.pad(labels[:, 1:], (0, 1), value=-100)
    filled = labels.masked_fill(labels == -100, model.config.pad_token_id)
    targets = labels.masked_fill(filled == model.config.pad_token_id, -100)
    if any(inputs.get(name) is not None for name in ("decoder_input_ids", "decoder_inputs_embeds")):
        return inputs, targets
    if hasattr(model, "prepare_decoder_input_ids_from_labels"):
        shifted = model.prepare_decoder_input_ids_from_labels(filled)
    else:
        shifted = F.pad(filled[:, :-1], (1, 0), value=model.config.decoder_start_token_id)
    return inputs | {"decoder_input_ids": shifted}, targets


@contextmanager
def projected_at(model: PreTrainedModel, positions_K: Tensor) -> Iterator[None]:
    """Projects in the block only these positions of all (B * T) to the vocabulary: the logits are (K, V).

    The model's own forward pass runs, with what it does before and after the projection: T5 scales states,
    BART adds a bias, Gemma-2 caps logits.
    """

    def chosen(head, args):
        return (args[0].flatten(0, 1).index_select(0, positions_K), *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        handle.remove()
