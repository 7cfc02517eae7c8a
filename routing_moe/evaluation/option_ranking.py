"""Option ranking: the most likely answer option is the prediction, instead of generated text.

The score of an option is its length-normalised log-likelihood (as in the evaluation of GPT-3: Brown et al.
2020, arXiv 2005.14165, section 2.4). For its T label tokens y, which are those of training, including `<s>`
and `</s>`:

    score = 1/T * sum over t of log p(y_t | y_<t, input)

Each input is encoded once. The (example, option) pairs of a batch are decoded together in groups of similar
length.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor
from transformers import StoppingCriteria
from transformers.modeling_outputs import BaseModelOutput

from dataloader.encoding import IGNORED_LABEL, Ragged
from routing_moe.model.modeling import CACHE_ARGUMENT
from routing_moe.model.routed_model import projected_at, with_targets

# Both limit memory and do not change results: padded source and target tokens per decoder call, and among
# them labels, which are projected to the vocabulary (0.4 GB of float32 for BART's 50 265 tokens).
MOST_TOKENS = 16384
MOST_PROJECTED = 2048


@torch.no_grad()
def option_scores(
    bart,
    batch: dict[str, Tensor],
    rows: list[np.ndarray],
    tokens: Ragged,
    routes_BLE: Tensor | None = None,
    autocast: Callable = nullcontext,
) -> list[list[float]]:
    """Returns for each of the B examples the scores of its options: mean log-likelihood per token in nats.

    bart: plain, or with routes. rows: for each example, the rows of `tokens` that are its options.
    """
    encoded_BSD = encoded(bart, batch, routes_BLE, autocast)
    # Options with the same tokens are one pair, so that their scores are bit-identical.
    pairs = [(b, row) for b, of_example in enumerate(rows) for row in of_example.tolist()]
    place = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
    pairs = np.array(list(place))
    scores_P = torch.zeros(len(pairs), dtype=torch.float64)
    lengths_P, start = tokens.lengths[pairs[:, 1]], 0
    order = np.argsort(-lengths_P, kind="stable")  # the longest first
    while start < len(order):
        fits = max(1, MOST_TOKENS // (encoded_BSD.shape[1] + int(lengths_P[order[start]])))
        piece, start = order[start : start + fits], start + fits
        examples = torch.from_numpy(pairs[piece, 0]).to(encoded_BSD.device)
        labels_PT = torch.from_numpy(tokens.padded(pairs[piece, 1], IGNORED_LABEL)).to(encoded_BSD.device)
        routes_PLE = None if routes_BLE is None else routes_BLE[examples]
        with autocast():
            scores_P[piece] = mean_log_likelihood(
                bart, encoded_BSD[examples], batch["attention_mask"][examples], labels_PT, routes_PLE
            ).to("cpu", torch.float64)
    scores = scores_P.tolist()
    return [[scores[place[b, row]] for row in of_example.tolist()] for b, of_example in enumerate(rows)]


def encoded(bart, batch: dict[str, Tensor], routes_BLE: Tensor | None, autocast: Callable) -> Tensor:
    """Returns the encoder's states (B, S, D) of a batch; arguments as for `option_scores`."""
    with torch.no_grad(), autocast(), _along(bart, routes_BLE) as plan:
        return bart.get_encoder()(**batch, **plan)[0]


def _along(bart, routes_BLE: Tensor | None) -> AbstractContextManager[dict]:
    return nullcontext({}) if routes_BLE is None else bart.along(bart.plan_routes(routes_BLE))


def mean_log_likelihood(bart, encoded_PSD, attention_mask_PS, labels_PT, *others, **cached) -> Tensor:
    """Returns the mean log-probability (P,) of each row's label tokens; arguments as `log_likelihoods`."""
    sums_2P = log_likelihoods(bart, encoded_PSD, attention_mask_PS, labels_PT, *others, **cached)
    return sums_2P[0] / (labels_PT != IGNORED_LABEL).sum(dim=1)


def log_likelihoods(
    bart, encoded_PSD, attention_mask_PS, labels_PT, routes_PLE, decoder_inputs=None, cache=None
) -> Tensor:
    """Returns two sums (2, P) over each row's label positions, in float32 or better.

    Of the label's log-probability, and of the mean log-probability of the vocabulary, which a label-smoothed
    loss adds. decoder_inputs: (P, T); None: those of training. cache: of the cross-attention.
    """
    if decoder_inputs is None:
        decoder_inputs = with_targets(bart, {}, labels_PT)[0]["decoder_input_ids"]
    pieces = [encoded_PSD, attention_mask_PS, decoder_inputs, labels_PT]
    pieces += [] if routes_PLE is None else [routes_PLE]
    at_once = len(labels_PT) if cache is not None else max(1, MOST_PROJECTED // labels_PT.shape[1])
    rows = zip(*(tensor.split(at_once) for tensor in pieces), strict=True)
    return torch.cat([_log_likelihoods(bart, cache, *piece) for piece in rows], dim=1)


def _log_likelihoods(bart, cache, states_PSD, mask_PS, decoder_inputs_PT, labels_PT, *routes_PLE) -> Tensor:
    known = dict(encoder_outputs=BaseModelOutput(states_PSD), attention_mask=mask_PS)
    known |= dict(decoder_input_ids=decoder_inputs_PT, use_cache=False)
    known |= {"routes": routes_PLE[0]} if routes_PLE else {}
    known |= {} if cache is None else {CACHE_ARGUMENT: cache}
    is_real_PT = labels_PT != IGNORED_LABEL
    with projected_at(bart, is_real_PT.flatten().nonzero()[:, 0]):
        logits_KV = bart(**known).logits
    logits_KV = logits_KV.to(torch.promote_types(logits_KV.dtype, torch.float32))
    chosen_K = logits_KV.gather(1, labels_PT[is_real_PT][:, None])[:, 0]
    log_p_2K = torch.stack([chosen_K, logits_KV.mean(dim=1)]) - logits_KV.logsumexp(dim=1)
    # index_add would add in varying order on a GPU.
    zeros_PT = log_p_2K.new_zeros(labels_PT.shape)
    return torch.stack([zeros_PT.masked_scatter(is_real_PT, log_p_K).sum(dim=1) for log_p_K in log_p_2K])


class GreedyScores(StoppingCriteria):
    """Adds up the log-probabilities of the tokens that greedy generation chooses; never stops it.

    They are those of the model, whatever the generation forbids or forces: `keep` is a forward hook of it.
    """

    def __init__(self, pad: int):
        self.pad, self.sums_B, self.lengths_B = pad, 0.0, 0

    def keep(self, bart, inputs, output) -> None:
        self.logits_BV = output.logits[:, -1]

    def __call__(self, tokens_BT: Tensor, scores, **_) -> Tensor:
        chosen_B = tokens_BT[:, -1]
        log_p_B = self.logits_BV.gather(1, chosen_B[:, None])[:, 0] - self.logits_BV.logsumexp(dim=1)
        is_real_B = chosen_B != self.pad  # answers that have ended are padded
        self.sums_B = self.sums_B + log_p_B.where(is_real_B, 0.0)
        self.lengths_B = self.lengths_B + is_real_B
        return torch.zeros_like(is_real_B)
