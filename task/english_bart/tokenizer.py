"""The tokenizer of a BART made from a BERT: the same tokens, and texts that can be compared with answers.

A WordPiece tokenizer separates punctuation and does not record the spaces, so that its text for the tokens
of "not_entailment" is "not _ entailment". A model could then not give such an answer. The rules below restore
the usual spaces. Of the first answers of 105 CrossFit tasks in lower case, the mean share that is the same
after encoding and decoding rises from 0.83 to 0.92. It is 1 for the labels of classification tasks, except
for emojis, which BERT's tokens do not include.
"""

from tokenizers import Regex, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dataloader.errors import InputError, in_brief
from routing_moe.io.hub import local_folder

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
