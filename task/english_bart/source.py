"""Finds and checks the encoder that a BART is made from, without torch."""

from pathlib import Path

from dataloader.errors import InputError, fault_context
from dataloader.jsonfile import load_json_object
from routing_moe.io.hub import is_hub_name, snapshot
from task.english_bart.settings import BuildSettings
from task.task_emb.descriptions import encoder_path, missing_package

# Encoders whose layers are those of BART's encoder: attention, residual, norm, two matrices, residual, norm.
# Value: how many rows of the table of positions come before that of the first token.
FIRST_POSITION = {"bert": 0, "roberta": 2}


def source_config(encoder: str) -> dict:
    """Returns the config.json of --encoder. Raises InputError if it does not exist or does not fit."""
    if missing := missing_package(encoder):
        raise InputError(missing)
    path = encoder_path(encoder)
    with fault_context("--encoder "):
        folder = Path(path)
        if not folder.is_dir():
            if not is_hub_name(path):
                raise InputError(f"{encoder}: no such folder (nor a hub name such as bert-base-uncased)")
            folder = snapshot(path).folder
        config = load_json_object(folder / "config.json", "a model's configuration")
    if faults := _misfits(config):
        raise InputError(f"--encoder {encoder}: {fault}" for fault in faults)
    return config


def _misfits(config: dict) -> list[str]:
    """Returns why a BART cannot be made from a model with this configuration."""
    kind = config.get("model_type")
    if kind not in FIRST_POSITION:
        return [f"it is a {kind!r} model; a BART can be made from a {' or a '.join(FIRST_POSITION)} model"]
    faults = []
    positions = config.get("position_embedding_type", "absolute")
    if positions != "absolute":
        faults.append(f"it has {positions!r} positions; BART's are absolute")
    if config.get("is_decoder"):
        faults.append("it is a decoder, whose tokens do not attend to later ones")
    return faults


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
    faults = [
        f"--{name} holds {layer}; the encoder's {count} layers have the numbers 0 to {count - 1}"
        for name, layers in (("encoder_layers", encoder), ("decoder_layers", decoder))
        for layer in layers
        if layer >= count
    ]
    if sorted(set(encoder)) != encoder:
        faults.append("--encoder_layers must be in ascending order, each layer once")
    if faults:
        raise InputError(faults)
    return encoder, decoder
