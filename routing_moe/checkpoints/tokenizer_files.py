"""Finds and checks the tokenizer of a model without torch; `start.load_tokenizer` loads it."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from dataloader.errors import InputError, fault_context, in_brief
from dataloader.jsonfile import load_json_object

TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
OTHER_FILES = ("*.model", "vocab.txt")
NO_FILES = "has no tokenizer files (tokenizer.json, or vocab.json and merges.txt)"


def keeps_tokenizer(place: str | Path) -> bool:
    """Returns whether `place` has a tokenizer: a folder with tokenizer files, or a hub name."""
    is_there = any((Path(place) / name).is_file() for name in TOKENIZER_FILES)
    return is_there or not Path(place).is_dir()


def check_start_tokenizer(place: str | Path, model: str, vocab_size: int) -> None:
    """Applies `check_tokenizer` to the model in `place`, or to --model if that is a folder without one."""
    if keeps_tokenizer(place):
        check_tokenizer(place, vocab_size)
    else:
        with fault_context("--model "):
            check_tokenizer(model, vocab_size)


def check_tokenizer(source: str | Path, vocab_size: int) -> None:
    """Raises InputError unless a folder has a tokenizer for this number of embeddings.

    The tokenizer of a hub name is checked when it is loaded.
    """
    folder = Path(source)
    if not folder.is_dir():
        return
    if (file := folder / "tokenizer.json").is_file():
        try:
            tokens = Tokenizer.from_file(str(file)).get_vocab_size()
        except Exception as error:  # tokenizers raises the class Exception itself
            reason = f"no tokenizer can be loaded from there ({in_brief(error)})"
            raise InputError(f"{source}: {reason}") from None
    elif (file := folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        ids = load_json_object(file, "a tokenizer's vocabulary").values()
        if not all(isinstance(number, int) for number in ids):
            raise InputError(f"{file} must map tokens to numbers")
        tokens = len(ids)
    elif any(path for pattern in OTHER_FILES for path in folder.glob(pattern)):
        return  # of another kind, which only transformers knows
    else:
        raise InputError(f"{source} {NO_FILES}")
    check_size(source, max(tokens, added_tokens(folder / "tokenizer_config.json")), vocab_size)


def added_tokens(path: Path) -> int:
    """Returns the number of tokens up to the last that a tokenizer_config.json adds; 0 if none."""
    if not path.is_file():
        return 0
    try:  # transformers writes model_max_length as an integer of 31 digits, which `load_json` refuses
        added = json.loads(path.read_text(encoding="utf-8")).get("added_tokens_decoder") or {}
        return max((int(number) + 1 for number in added), default=0)
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not the configuration of a tokenizer ({in_brief(error)})") from None


def check_size(source: str | Path, tokens: int, vocab_size: int) -> None:
    """Raises InputError for more tokens than embeddings."""
    if tokens > vocab_size:
        raise InputError(
            f"{source}: its tokenizer has {tokens} tokens, more than the {vocab_size} embeddings of its "
            "model; they do not match"
        )
