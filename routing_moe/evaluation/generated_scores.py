"""The scores of generated answers: mean log-probability per token in nats, as of ranked options.

The log-probabilities are those of the model itself, whatever the generation forbids or forces.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, StoppingCriteria

from dataloader.encoding import IGNORED_LABEL
from routing_moe.evaluation.option_ranking import mean_log_likelihood
from routing_moe.model.beams import SourceCache


class GreedyScores(StoppingCriteria):
    """Adds up the log-probabilities of the tokens that `generate` chooses with one beam; never stops it.

    Within the block, it reads the logits of the model's vocabulary projection.
    """

    def __init__(self, bart):
        self.bart, self.sum_B, self.tokens_B = bart, 0.0, 0

    def __enter__(self) -> "GreedyScores":
        self.hook = self.bart.lm_head.register_forward_hook(self._keep)
        return self

    def __exit__(self, *_) -> None:
        self.hook.remove()

    def _keep(self, module, inputs, logits_BTV: Tensor) -> None:
        self.logits_BV = logits_BTV[:, -1]

    def __call__(self, input_ids: Tensor, scores, **_) -> Tensor:
        chosen_B, logits_BV = input_ids[:, -1], self.logits_BV + self.bart.final_logits_bias
        log_p_B = logits_BV.gather(1, chosen_B[:, None])[:, 0] - logits_BV.logsumexp(dim=1)
        is_real_B = chosen_B != self.bart.config.pad_token_id  # answers that have ended are padded
        self.sum_B = self.sum_B + log_p_B.where(is_real_B, 0.0)
        self.tokens_B = self.tokens_B + is_real_B
        return torch.zeros_like(is_real_B)

    def means(self) -> list[float]:
        return (self.sum_B / self.tokens_B).tolist()


@torch.no_grad()
def sequence_scores(
    bart,
    encoded_BSD: Tensor,
    batch: dict[str, Tensor],
    sequences_BT: Tensor,
    routes_BLE: Tensor | None,
    autocast: Callable,
    cache: SourceCache | None = None,
) -> list[float]:
    """Returns the scores of generated sequences, which begin with the token that starts decoding.

    encoded_BSD: `option_ranking.encoded` of the batch. cache: that of the generation by a plain BART, whose
    keys and values of the cross-attention are used again. Other arguments as for `option_scores`.
    """
    pad = bart.config.pad_token_id
    labels_BT = sequences_BT[:, 1:].masked_fill(sequences_BT[:, 1:] == pad, IGNORED_LABEL)
    known = {"decoder_inputs": sequences_BT[:, :-1]}
    if cache is not None:
        known["cache"] = EncoderDecoderCache(DynamicCache(), cache.cross_attention_cache)
    with autocast():
        scores_B = mean_log_likelihood(
            bart, encoded_BSD, batch["attention_mask"], labels_BT, routes_BLE, **known
        )
    return scores_B.tolist()
