"""The flags of `routing-moe english-bart`, and the encoder that they name, found and checked without torch."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from dataloader.errors import InputError, problem_context
from dataloader.jsonfile import load_json_object
from routing_moe.config.flags import NOT_NEGATIVE, group
from routing_moe.io.hub import is_hub_name, snapshot
from task.task_emb.descriptions import MINILM, encoder_path, missing_package
from task.written_folder import FILES, FolderCommand

LAYERS = group("layers")

# Encoders whose layers are those of BART's encoder: attention, residual, norm, two matrices, residual, norm.
# Value: how many rows of the table of positions come before that of the first token.
FIRST_POSITION = {"bert": 0, "roberta": 2}


def numbers(text: str) -> tuple[int, ...]:
    """Parses layer numbers in their order: "0,3,5" is (0, 3, 5)."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a comma-separated list of layer numbers") from None


# fmt: off
@dataclass(frozen=True, kw_only=True)
class BuildSettings(FolderCommand):
    program = "routing-moe english-bart"
    usage = "--output_dir FOLDER [flags, see --help]"

    encoder: str = FILES(MINILM, "BERT or RoBERTa to make it from: a folder or a hub name; the default is part of the extra [sentences]")
    encoder_layers: tuple[int, ...] | None = LAYERS(None, "layers of the source that the encoder keeps, numbered from 0 (default: all)", range=NOT_NEGATIVE, parse=numbers, metavar="0,2,5")
    decoder_layers: tuple[int, ...] | None = LAYERS(None, "the layer of the source that each decoder layer starts from (default: two layers, from the first and the last)", range=NOT_NEGATIVE, parse=numbers, metavar="0,5")
# fmt: on


def source_config(encoder: str) -> dict:
    """Returns the config.json of --encoder. Raises InputError if it does not exist or does not fit."""
    if missing := missing_package(encoder):
        raise InputError(missing)
    path = encoder_path(encoder)
    with problem_context("--encoder "):
        folder = Path(path)
        if not folder.is_dir():
            if not is_hub_name(path):
                raise InputError(f"{encoder}: no such folder (nor a hub name such as bert-base-uncased)")
            folder = snapshot(path).folder
        config = load_json_object(folder / "config.json", "a model's configuration")
    if (kind := config.get("model_type")) not in FIRST_POSITION:
        known = " or a ".join(FIRST_POSITION)
        raise InputError(
            f"--encoder {encoder}: it is a {kind!r} model; a BART can be made from a {known} model"
        )
    if (positions := config.get("position_embedding_type", "absolute")) != "absolute":
        raise InputError(f"--encoder {encoder}: it has {positions!r} positions; BART's are absolute")
    return config


def positions_of(config: dict) -> int:
    """Returns the most tokens of a text of a source with this configuration."""
    return config["max_position_embeddings"] - FIRST_POSITION[config["model_type"]]


def chosen_layers(settings: BuildSettings, config: dict) -> tuple[list[int], list[int]]:
    """Returns the layers of the source that the encoder's and the decoder's layers are made from.

    Raises InputError for layers that the source does not have.
    """
    count = config["num_hidden_layers"]
    encoder = list(range(count)) if settings.encoder_layers is None else list(settings.encoder_layers)
    decoder = [0, count - 1] if settings.decoder_layers is None else list(settings.decoder_layers)
    problems = [
        f"--{name} holds {layer}; the encoder's {count} layers have the numbers 0 to {count - 1}"
        for name, layers in (("encoder_layers", encoder), ("decoder_layers", decoder))
        for layer in layers
        if layer >= count
    ]
    if sorted(set(encoder)) != encoder:
        problems.append("--encoder_layers must be in ascending order, each layer once")
    if problems:
        raise InputError(problems)
    return encoder, decoder
