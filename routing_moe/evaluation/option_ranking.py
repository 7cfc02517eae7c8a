"""Option ranking: the most likely answer option is the prediction, instead of generated text.

The score of an option is its length-normalised log-likelihood (as in the evaluation of GPT-3: Brown et al.
2020, arXiv 2005.14165, section 2.4). For its T label tokens y, which are those of training, including `<s>`
and `</s>`:

    score = 1/T * sum over t of log p(y_t | y_<t, input)

Each input is read once: by the encoder, or by a decoder-only model into its cache. The (example, option)
pairs of a batch are scored together in groups of similar length.
"""

import copy
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, StoppingCriteria

from dataloader.encoded import IGNORED_LABEL, Ragged
from routing_moe.model.beams import CACHE_ARGUMENT
from routing_moe.model.loss import example_losses, with_targets

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

    bart: plain, or with routes. batch: inputs, those of a decoder-only model padded at the left. rows: for
    each example, the rows of `tokens` that are its options.
    """
    has_encoder = bart.config.is_encoder_decoder
    read = (EncodedInputs if has_encoder else CachedInputs)(bart, batch, routes_BLE, autocast)
    # Options with the same tokens are one pair, so that their scores are bit-identical.
    pairs = [(b, row) for b, of_example in enumerate(rows) for row in of_example.tolist()]
    place = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
    pairs = np.array(list(place))
    scores_P = torch.zeros(len(pairs), dtype=torch.float64)
    lengths_P, start = tokens.lengths[pairs[:, 1]], 0
    order = np.argsort(-lengths_P, kind="stable")  # the longest first
    mask_BS = batch["attention_mask"]
    while start < len(order):
        longest = int(lengths_P[order[start]])
        fits = max(1, min(MOST_TOKENS // (mask_BS.shape[1] + longest), MOST_PROJECTED // longest))
        piece, start = order[start : start + fits], start + fits
        examples = torch.from_numpy(pairs[piece, 0]).to(mask_BS.device)
        labels_PT = torch.from_numpy(tokens.padded(pairs[piece, 1], IGNORED_LABEL)).to(mask_BS.device)
        routes_PLE = None if routes_BLE is None else routes_BLE[examples]
        with autocast():
            inputs = read.followed_by(labels_PT, examples)
            (losses_P,) = example_losses(bart, inputs, labels_PT, routes_BLE=routes_PLE)
            scores_P[piece] = per_token(losses_P, labels_PT).to("cpu", torch.float64)
    scores = scores_P.tolist()
    return [[scores[place[b, row]] for row in of_example.tolist()] for b, of_example in enumerate(rows)]


# ---- inputs that are read once


class EncodedInputs:
    """The encoder's states (B, S, D) of a batch; arguments as for `option_scores`."""

    def __init__(self, bart, batch: dict[str, Tensor], routes_BLE: Tensor | None, autocast: Callable):
        self.bart, self.mask_BS = bart, batch["attention_mask"]
        self.states_BSD = encoded(bart, batch, routes_BLE, autocast)

    def followed_by(self, labels_PT: Tensor, examples_P: Tensor) -> dict:
        """Returns the inputs of the model for answers to these examples, without the routes."""
        inputs = {"encoder_outputs": self.states_BSD[examples_P], "attention_mask": self.mask_BS[examples_P]}
        return with_targets(self.bart, inputs, labels_PT)[0]


class CachedInputs:
    """The keys and values of inputs, except those of their last tokens, which predict the answers' first."""

    def __init__(self, model, batch: dict[str, Tensor], routes_BLE: Tensor | None, autocast: Callable):
        ids_BS, self.mask_BS = batch["input_ids"], batch["attention_mask"][:, :-1]
        config = getattr(model, "backbone", model).config.get_text_config(decoder=True)
        self.last_B1, self.cache = ids_BS[:, -1:], DynamicCache(config=config)
        if self.mask_BS.shape[1]:
            places = dict(position_ids=positions(self.mask_BS), logits_to_keep=1)
            places |= {"attention_mask": self.mask_BS, CACHE_ARGUMENT: self.cache, "use_cache": True}
            places |= {} if routes_BLE is None else {"routes": routes_BLE}
            with torch.no_grad(), autocast():
                model(input_ids=ids_BS[:, :-1], **places)

    def followed_by(self, labels_PT: Tensor, examples_P: Tensor) -> dict:
        """As for `EncodedInputs`."""
        answers_PT = torch.cat([self.last_B1[examples_P], labels_PT[:, :-1].clamp(min=0)], dim=1)
        mask_PS = self.mask_BS[examples_P]
        steps_T = torch.arange(answers_PT.shape[1], device=mask_PS.device)
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        cache.batch_select_indices(examples_P)  # in new tensors
        return {
            "input_ids": answers_PT,
            "attention_mask": torch.cat([mask_PS, torch.ones_like(answers_PT)], dim=1),
            "position_ids": mask_PS.sum(dim=1, keepdim=True) + steps_T,
            CACHE_ARGUMENT: cache,
        }


def positions(mask_BS: Tensor) -> Tensor:
    """Returns the position of each token of a decoder-only model, from 0 after the padding at the left."""
    return (mask_BS.cumsum(dim=1) - 1).clamp(min=0)


def encoded(bart, batch: dict[str, Tensor], routes_BLE: Tensor | None, autocast: Callable) -> Tensor:
    """Returns the encoder's states (B, S, D) of a batch; arguments as for `option_scores`."""
    routed = nullcontext({}) if routes_BLE is None else bart.using_routes(bart.plan_routes(routes_BLE))
    with torch.no_grad(), autocast(), routed as plan:
        return bart.get_encoder()(**batch, **plan)[0]


# ---- log-likelihoods


def per_token(losses_P: Tensor, labels_PT: Tensor) -> Tensor:
    """Returns the mean log-probability (P,) of each row's label tokens, of `losses_of`."""
    return -losses_P / (labels_PT != IGNORED_LABEL).sum(dim=1)


def losses_of(
    bart, inputs: dict[str, Tensor], labels_PT: Tensor, routes_PLE=None, smoothings=(0.0,), cache=None
) -> Tensor:
    """Returns `example_losses` (len(smoothings), P), of as many rows at once as memory allows.

    inputs: those of the model, with `decoder_input_ids` unless they are those of training; of a decoder-only
    model with answers. cache: of the cross-attention.
    """
    inputs, targets_PT = with_targets(bart, inputs, labels_PT)
    if cache is not None:
        return example_losses(bart, inputs | {CACHE_ARGUMENT: cache}, targets_PT, smoothings, routes_PLE)
    most = int((targets_PT != IGNORED_LABEL).sum(dim=1).max())
    at_once, losses = max(1, MOST_PROJECTED // most), []
    for rows in torch.arange(len(targets_PT), device=targets_PT.device).split(at_once):
        piece = {name: tensor[rows] for name, tensor in inputs.items()}
        routes = None if routes_PLE is None else routes_PLE[rows]
        losses.append(example_losses(bart, piece, targets_PT[rows], smoothings, routes))
    return torch.cat(losses, dim=1)


# ---- scores of generated answers


def is_answer_token(tokens_BT: Tensor, end: int) -> Tensor:
    """Returns which tokens of generated answers are real: all up to the first end token, and that."""
    is_end_BT = (tokens_BT == end).long()
    return is_end_BT.cumsum(dim=1) - is_end_BT == 0


class GreedyScores(StoppingCriteria):
    """Adds up the log-probabilities of the tokens that greedy generation chooses; never stops it.

    They are those of the model, whatever the generation forbids or forces: `keep` is a forward hook of it.
    """

    def __init__(self, end: int):
        self.end, self.sums_B, self.lengths_B, self.running_B = end, 0.0, 0, None

    def keep(self, bart, inputs, output) -> None:
        logits_BV = output.logits[:, -1]
        self.logits_BV = logits_BV.to(torch.promote_types(logits_BV.dtype, torch.float32))

    def __call__(self, tokens_BT: Tensor, scores, **_) -> Tensor:
        chosen_B = tokens_BT[:, -1]
        log_p_B = self.logits_BV.gather(1, chosen_B[:, None])[:, 0] - self.logits_BV.logsumexp(dim=1)
        if self.running_B is None:
            self.running_B = torch.ones_like(chosen_B, dtype=torch.bool)
        self.sums_B = self.sums_B + log_p_B.where(self.running_B, 0.0)
        self.lengths_B = self.lengths_B + self.running_B
        self.running_B = self.running_B & (chosen_B != self.end)  # answers that have ended are padded
        return torch.zeros_like(self.running_B)
