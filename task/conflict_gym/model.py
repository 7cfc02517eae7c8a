"""The tokenizer and the untrained BART of a conflict gym; `transformers` loads both without this package."""

import math
from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BartForConditionalGeneration, PreTrainedTokenizerFast

from dataloader.encoding import HIDDEN_NAME
from task.skill_gym.pretraining import tiny_config
from task.skill_gym.tokenizer import SPECIAL_TOKENS, as_bart_tokenizer

POSITIONS = 64


def word_tokenizer(words: Iterable[str], names: Iterable[str]) -> PreTrainedTokenizerFast:
    """Returns a tokenizer of whole words, for texts such as " [t007] badiko rusefa".

    A name such as e2-d3-t007 is split at its hyphens: unseen tasks share the tokens e2 and d3 with others.
    """
    parts = dict.fromkeys(part for name in names for part in name.split("-"))
    tokens = dict.fromkeys([*SPECIAL_TOKENS, "[", "]", "-", HIDDEN_NAME, *parts, *words])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return as_bart_tokenizer(tokenizer)


def random_bart(
    tokenizer: PreTrainedTokenizerFast, width: int, layers: int, init_std: float, seed: int
) -> BartForConditionalGeneration:
    """Returns a BART with random weights and no dropout; it has 2 heads or 1 if 4 do not divide the width."""
    torch.manual_seed(seed)
    config = tiny_config(tokenizer, width, layers, math.gcd(width, 4), POSITIONS, init_std)
    return BartForConditionalGeneration(config).eval()
