"""Makes a BART from a BERT's encoder and its tokenizer; the decoder starts from the encoder's layers.

Rothe, Narayan and Severyn 2020 (arXiv 1907.12461) start both sides of an encoder-decoder model from BERT.
Here cross-attention starts from the self-attention of the same layer, too.
"""

from collections.abc import Sequence

import torch
from tokenizers import Regex, decoders, models
from torch import nn
from transformers import (
    AutoModel,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from dataloader.errors import InputError, in_brief
from routing_moe.io.hub import local_folder
from task.english_bart.source import FIRST_POSITION, positions_of

OFFSET = 2  # rows of BART's table of positions before that of the first token


def load_encoder(path: str) -> nn.Module:
    """Returns the encoder of a folder or hub name in float32. Raises InputError."""
    try:
        model, report = AutoModel.from_pretrained(
            local_folder(path), dtype=torch.float32, add_pooling_layer=False, output_loading_info=True
        )
    except Exception as error:  # transformers raises many types of errors
        raise InputError(
            f"--encoder {path}: no encoder can be loaded from there ({in_brief(error)})"
        ) from None
    # What the files lack, the library fills with random numbers.
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"--encoder {path}: it lacks {len(missing)} weights, such as {missing[0]}")
    return model


@torch.no_grad()
def bart_from(
    source: nn.Module, encoder_layers: Sequence[int], decoder_layers: Sequence[int], tokenizer
) -> BartForConditionalGeneration:
    """Returns a BART whose encoder computes what the chosen layers of `source` compute.

    source: a BertModel or RobertaModel. encoder_layers, decoder_layers: for each layer of the BART the layer
    of the source that it starts from. tokenizer: that of the BART, for its special tokens.

    BART's layer norms add 1e-5 to the variance, those of most BERTs 1e-12: states differ by so little.
    """
    bart = BartForConditionalGeneration(
        bart_config(source.config, len(encoder_layers), len(decoder_layers), tokenizer)
    ).to(source.dtype)
    embeddings = source.embeddings
    bart.model.shared.weight.copy_(embeddings.word_embeddings.weight)
    first = FIRST_POSITION[source.config.model_type]
    # Every token of a BART has the same type, so that its vector can be part of the positions.
    positions = embeddings.position_embeddings.weight[first:] + embeddings.token_type_embeddings.weight[0]
    for side, layers in ((bart.model.encoder, encoder_layers), (bart.model.decoder, decoder_layers)):
        side.embed_positions.weight.zero_()  # the first OFFSET rows are not used
        side.embed_positions.weight[OFFSET:] = positions
        side.layernorm_embedding.load_state_dict(embeddings.LayerNorm.state_dict())
        for layer, number in zip(side.layers, layers, strict=True):
            layer.load_state_dict(layer_weights(source.encoder.layer[number], side is bart.model.decoder))
    return bart.eval()


def bart_config(source, encoder_layers: int, decoder_layers: int, tokenizer) -> BartConfig:
    """Returns the configuration of a BART of the source's width. source: the source's configuration."""
    return BartConfig(
        vocab_size=source.vocab_size,
        max_position_embeddings=positions_of(source.to_dict()),
        d_model=source.hidden_size,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=source.num_attention_heads,
        decoder_attention_heads=source.num_attention_heads,
        encoder_ffn_dim=source.intermediate_size,
        decoder_ffn_dim=source.intermediate_size,
        activation_function=source.hidden_act,
        dropout=source.hidden_dropout_prob,
        attention_dropout=source.attention_probs_dropout_prob,
        init_std=source.initializer_range,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=tokenizer.eos_token_id,
    )


def layer_weights(source: nn.Module, is_decoder: bool) -> dict[str, torch.Tensor]:
    """Returns the state of a BART layer that starts from a BERT layer."""
    attention = {
        "q_proj": source.attention.self.query,
        "k_proj": source.attention.self.key,
        "v_proj": source.attention.self.value,
        "out_proj": source.attention.output.dense,
    }
    norm = source.attention.output.LayerNorm
    modules = {f"self_attn.{name}": module for name, module in attention.items()}
    modules |= {"self_attn_layer_norm": norm, "fc1": source.intermediate.dense, "fc2": source.output.dense}
    modules["final_layer_norm"] = source.output.LayerNorm
    if is_decoder:
        modules |= {f"encoder_attn.{name}": module for name, module in attention.items()}
        modules["encoder_attn_layer_norm"] = norm
    return {
        f"{name}.{part}": tensor
        for name, module in modules.items()
        for part, tensor in module.state_dict().items()
    }


# ---- the tokenizer: the same tokens, and texts that can be compared with answers

# A WordPiece tokenizer separates punctuation and does not record the spaces, so that its text for the tokens
# of "not_entailment" is "not _ entailment". A model could then not give such an answer. The rules restore
# the usual spaces. Of the first answers of 105 CrossFit tasks in lower case, the mean share that is the same
# after encoding and decoding rises from 0.83 to 0.92. It is 1 for the labels of classification tasks, except
# for emojis, which BERT's tokens do not include.


SPACING = (
    (" - ", "-"),
    (" _ ", "_"),
    (" / ", "/"),
    (Regex(r"(?<=\d)\. (?=\d)"), "."),  # 3.5
    (Regex(r"(?<=\d) : (?=\d)"), ":"),  # 12:30
    (Regex(r"(?<=\d), (?=\d{3}\b)"), ","),  # 5,100
    (Regex(r" ' (?=(s|t|re|ll|ve|m|d)\b)"), "'"),  # don't
    (Regex(r"(?<=[(\[$£#@]) | (?=[)\];:])"), ""),  # (a), [b], $5, c: d
)
SPECIAL = {"bos": "cls", "eos": "sep", "cls": "cls", "sep": "sep", "pad": "pad", "unk": "unk", "mask": "mask"}


def bart_tokenizer(path: str, positions: int) -> PreTrainedTokenizerFast:
    """Returns the tokenizer of an encoder as one of a BART: `<s>` is [CLS], and `</s>` is [SEP].

    path: a folder or hub name; positions: the most tokens of a text. Raises InputError.
    """
    try:
        source = AutoTokenizer.from_pretrained(local_folder(path))
        backend = source.backend_tokenizer
    except Exception as error:  # transformers raises many types of errors
        raise InputError(
            f"--encoder {path}: no fast tokenizer can be loaded from there ({in_brief(error)})"
        ) from None
    tokens = {name: getattr(source, f"{of}_token") for name, of in SPECIAL.items()}
    if lacking := [name for name in ("cls", "sep", "pad", "unk") if tokens[name] is None]:
        raise InputError(f"--encoder {path}: its tokenizer has no {lacking[0]} token")
    backend.no_truncation()  # sentence encoders save a maximum length and a padding
    backend.no_padding()
    if isinstance(backend.model, models.WordPiece):
        pieces = decoders.WordPiece(prefix=backend.model.continuing_subword_prefix, cleanup=True)
        rules = (decoders.Replace(pattern, content) for pattern, content in SPACING)
        backend.decoder = decoders.Sequence([pieces, decoders.Fuse(), *rules])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
        **{f"{name}_token": token for name, token in tokens.items()},
    )


def lowers_case(tokenizer) -> bool:
    """Returns whether the tokens of "A" and "a" are the same, so that answers are in lower case."""
    return tokenizer("A")["input_ids"] == tokenizer("a")["input_ids"]
