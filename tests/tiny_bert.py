"""Random encoders in folders, with tokenizers of their kind: what a BART is made from."""

import json
import string
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertModel, RobertaConfig, RobertaModel

from task.skill_gym import TINY_BART

WORDS = [
    "task",
    "not",
    "entailment",
    "color",
    "colour",
    "two",
    "and",
    "one",
    "sky",
    "cat",
    "cats",
    "big",
    "Sky",
]
SIZES = dict(
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=24,
    initializer_range=0.3,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


def write_bert(folder: Path, cased: bool = False, **fields) -> Path:
    """Writes a BERT of 3 layers whose WordPiece tokens are some words and all ASCII characters."""
    characters = [c for c in string.printable if not c.isspace()]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = dict.fromkeys([*special, *WORDS, *characters, *(f"##{c}" for c in characters)])
    torch.manual_seed(1)
    sizes = dict(vocab_size=len(vocabulary), max_position_embeddings=64, layer_norm_eps=1e-5)
    BertModel(BertConfig(**(SIZES | sizes | fields))).save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary))
    kind = {"tokenizer_class": "BertTokenizer", "do_lower_case": not cased, "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))
    return folder


def write_roberta(folder: Path) -> Path:
    """Writes a RoBERTa of 3 layers with the byte-level tokens of the embedded gym."""
    tokenizer = AutoTokenizer.from_pretrained(TINY_BART)
    torch.manual_seed(1)
    sizes = dict(
        vocab_size=len(tokenizer), max_position_embeddings=66, type_vocab_size=1, layer_norm_eps=1e-5
    )
    RobertaModel(RobertaConfig(**(SIZES | sizes))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
