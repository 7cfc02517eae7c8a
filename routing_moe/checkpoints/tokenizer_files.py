"""Finds and loads the tokenizer of a model."""

from pathlib import Path

from dataloader.errors import InputError, in_brief, problem_context
from routing_moe.io.hub import OTHER_TOKENIZERS, TOKENIZER_FILES, local_folder


def load_tokenizer(source: str | Path, vocab_size: int):
    """Returns the tokenizer of a folder or hub name. Raises InputError that names the source.

    vocab_size: number of token embeddings of the model, an upper bound of the number of tokens.
    """
    from transformers import AutoTokenizer  # takes seconds

    folder = local_folder(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # transformers raises many types of errors
        raise InputError(f"{source}: no tokenizer can be loaded from there ({in_brief(error)})") from None
    if len(tokenizer) <= len(set(tokenizer.all_special_tokens)):  # transformers' result without any files
        raise InputError(f"{source} has no tokenizer files (tokenizer.json, or vocab.json and merges.txt)")
    if len(tokenizer) > vocab_size:
        counts = f"{len(tokenizer)} tokens, more than the {vocab_size} embeddings of its model"
        raise InputError(f"{source}: its tokenizer has {counts}")
    return tokenizer


def load_start_tokenizer(source: str | Path, model: str, vocab_size: int):
    """Returns the tokenizer of a model in `source`, or if there is none, of `model`, the value of --model."""
    names = (*TOKENIZER_FILES, *OTHER_TOKENIZERS, "tokenizer_config.json")  # the last: all that a ByT5 has
    has_files = any(any(Path(source).glob(name)) for name in names)
    if has_files or not Path(source).is_dir():  # or a hub name
        return load_tokenizer(source, vocab_size)
    with problem_context("--model "):
        return load_tokenizer(model, vocab_size)
