"""The tokenizer and the untrained BART of a conflict gym; `transformers` loads both without this package."""

import math
from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from dataloader.encoding import HIDDEN_NAME

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # with BART's ids, 0 to 4
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
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(token, vocabulary[token]) for token in ("<s>", "</s>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        cls_token="<s>",
        sep_token="</s>",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def random_bart(
    tokenizer: PreTrainedTokenizerFast, width: int, layers: int, init_std: float, seed: int
) -> BartForConditionalGeneration:
    """Returns a BART with random weights and no dropout; it has 2 heads or 1 if 4 do not divide the width."""
    torch.manual_seed(seed)
    heads = math.gcd(width, 4)
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=2 * width,
        decoder_ffn_dim=2 * width,
        max_position_embeddings=POSITIONS,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        init_std=init_std,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=tokenizer.eos_token_id,
    )
    return BartForConditionalGeneration(config).eval()
