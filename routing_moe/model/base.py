"""The model that low-rank experts share: if it is not trained, a saved mixture refers to it, without a copy.

A configuration names the base (`base_model`: a folder, a file or a hub name) and has a checksum of its
weights (`base_sha256`). Loading reads the base and compares the checksum, to find a base that is not
the one that the experts were trained on. Of a BART the checksum is of all weights; of another model, which
may be large, of all vectors, such as norms and biases, and of the sum of each row of all matrices, which a
permutation inside a row does not change. Earlier checkpoints have the checksum of the first map with experts.
"""

import hashlib
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dataloader.atomic_files import final_path
from dataloader.errors import InputError
from routing_moe.config.choices import ROUTING_BART
from routing_moe.io.hub import is_hub_name, local_folder
from routing_moe.model.loading import (
    TIED_NAMES,
    damaged,
    load_bart,
    load_routing_bart,
    load_vanilla_checkpoint,
    own_tensors,
    saved_kind,
)
from routing_moe.model.lora import is_of_expert

# What the names of the parts of a mixture that a plain model does not have start with.
ROUTING_NAMES = ("router.", "task_vectors.", "task_routes", "route_vectors")


def is_of_base(name: str) -> bool:
    """Returns whether a tensor of this name belongs to the model that low-rank experts share."""
    return not name.startswith(ROUTING_NAMES) and not is_of_expert(name)


def base_tensors(model) -> dict[str, Tensor]:
    """Returns {name: tensor} of the plain model that experts share, tied tensors once."""
    return {name: tensor for name, tensor in own_tensors(model).items() if is_of_base(name)}


def train_base(model, trained: bool) -> None:
    """Sets whether the plain model that experts share is trained."""
    for name, parameter in model.named_parameters():
        if is_of_base(name):
            parameter.requires_grad_(trained)


def checksum(tensors: dict[str, Tensor]) -> str:
    """Returns the SHA-256 of tensors: of their names in sorted order, each with its values (in float32)."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        values = tensors[name].detach()
        values = values.float() if values.is_floating_point() else values
        digest.update(values.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def row_sums(tensor: Tensor) -> Tensor:
    """Returns a vector as it is; of a matrix, the sums of its rows, their bytes read as integers."""
    if tensor.ndim < 2 or not tensor.numel():
        return tensor
    bytes_ = tensor.detach().contiguous().flatten(1).view(torch.uint8)
    return (bytes_ if bytes_.shape[1] % 8 else bytes_.view(torch.int64)).sum(1)


def fingerprint(model) -> str:
    """Returns the checksum of a model's base, by which another base is recognised."""
    tensors = base_tensors(model)
    if model.config.model_type != ROUTING_BART:
        tensors = {name: row_sums(tensor) for name, tensor in tensors.items()}
    return checksum(tensors)


def checksum_of_first_map(model) -> str:
    """Returns what earlier checkpoints have as the fingerprint of a base that is no BART."""
    layer = model.lora_layers[0]
    name, linear = next(iter(layer.linear_maps.items()))
    return checksum({f"{layer.name}.{name}.weight": linear.weight})


def refer_to_base(model, place: str | Path) -> None:
    """Notes in the configuration that the weights of the base come from `place`, and their checksum."""
    model.config.base_model = str(Path(place).absolute()) if Path(place).exists() else str(place)
    model.config.base_sha256 = fingerprint(model)


def is_unchanged(model) -> bool:
    """Returns whether the base is still the one that the configuration refers to."""
    return fingerprint(model) == model.config.base_sha256


def place_from(folder: str | Path, base: str | None) -> str | None:
    """Returns how files in a folder name a base: by its hub name, or by its path from the folder."""
    if base is None or not os.path.exists(base):
        return base
    return os.path.relpath(os.path.realpath(base), final_path(folder))


def stored_tensors(model) -> dict[str, Tensor] | None:
    """Returns the tensors to save; None: all. The reference to a base that has changed is removed."""
    if model.config.base_model is not None and not is_unchanged(model):
        model.config.base_model = model.config.base_sha256 = None
    if model.config.base_model is None:
        return None
    return {name: tensor for name, tensor in own_tensors(model).items() if not is_of_base(name)}


def complete_state(cls, folder: Path, config, token: str | None = None) -> dict[str, Tensor]:
    """Returns all weights of the model in a folder that refers to its base.

    The base is a folder, a file or a hub name of a plain BART, or a run of one expert.
    """
    place, path = config.base_model, Path(config.base_model)
    need_base(place)
    source = path if path.exists() else local_folder(place, token=token)
    if source.is_dir() and saved_kind(source) == ROUTING_BART:
        state = load_routing_bart(cls, source).to_bart().state_dict()
    else:
        state = load_vanilla_checkpoint(path) if path.exists() else load_bart(place).state_dict()
    if config.tie_word_embeddings:
        state = {name: tensor for name, tensor in state.items() if not TIED_NAMES.search(name)}
    state.setdefault("final_logits_bias", torch.zeros(1, config.vocab_size))  # which old files lack
    check_base(config, checksum(state))
    return state | saved_tensors(folder)


def need_base(place: str) -> None:
    """Raises InputError if the base that a saved model refers to is neither there nor a hub name."""
    path = Path(place)
    if not path.exists() and (path.is_absolute() or not is_hub_name(place)):
        raise InputError(
            f"{place}: not found; it has the model that the experts were trained on. Move it back, or change "
            "base_model in the config.json of the experts"
        )


def check_base(config, found: str) -> None:
    """Raises InputError if the base whose fingerprint was found is not the one that a model refers to."""
    if found != config.base_sha256:
        raise InputError(
            f"{config.base_model}: not the model that the experts were trained on: its weights have another "
            "checksum"
        )


def saved_tensors(folder: Path) -> dict[str, Tensor]:
    """Returns the tensors of the weight files in a folder. Raises InputError for a damaged one."""
    state = {}
    for file in sorted(folder.glob("model*.safetensors")):
        try:
            state |= load_file(file)
        except SafetensorError as error:
            raise damaged(file, error) from None
    return state
