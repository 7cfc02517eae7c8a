"""The model that low-rank experts share: if it is not trained, a saved mixture refers to it, without a copy.

A configuration names the base (`base_model`: a folder, a file or a hub name) and has a checksum of its
weights (`base_sha256`). Loading reads the base and compares the checksum, to find a base that is not
the one that the experts were trained on. The checksum is of all vectors, such as norms and biases, and of the
sum of each row of all matrices, which may be large; a permutation inside a row does not change it. Names and
shapes are compared, too.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from dataloader.atomic_files import final_path
from dataloader.errors import InputError, in_short, problem_context
from routing_moe.config.choices import MIXTURES
from routing_moe.io.hub import is_hub_name, local_folder
from routing_moe.model.loading import (
    auto_class,
    check_not_quantized,
    damaged,
    load_backbone,
    load_checked,
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
    """Sets whether the plain model that experts share is trained. Raises InputError if it cannot be."""
    if trained:
        check_not_quantized(model.config, "train low-rank experts (--expert_kind lora), with --base_lr 0")
    for name, parameter in model.named_parameters():
        if is_of_base(name):
            parameter.requires_grad_(trained)


def fingerprint(model) -> str:
    """Returns a SHA-256 that says whether the base of a model is another one: of names and sums of rows."""
    digest = hashlib.sha256()
    for name, tensor in sorted(base_tensors(model).items()):
        digest.update(name.encode())
        values = tensor.detach().contiguous()
        if values.ndim > 1 and values.numel():  # the bytes of a row, read as integers, are added
            bytes_ = values.flatten(1).view(torch.uint8)
            values = (bytes_ if bytes_.shape[1] % 8 else bytes_.view(torch.int64)).sum(1)
        values = values.float() if values.is_floating_point() else values
        digest.update(values.cpu().contiguous().numpy().data)
    return digest.hexdigest()


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
        check_not_quantized(model.config, "save the plain model, and make the mixture from its folder")
        return None
    return {name: tensor for name, tensor in own_tensors(model).items() if not is_of_base(name)}


def saved_tensors(folder: Path) -> dict[str, Tensor]:
    """Returns the tensors of the weight files in a folder. Raises InputError for a damaged one."""
    state = {}
    for file in sorted(folder.glob("model*.safetensors")):
        try:
            state |= load_file(file)
        except SafetensorError as error:
            raise damaged(file, error) from None
    return state


# ---- plain models


def empty(config: PreTrainedConfig, **loading) -> PreTrainedModel:
    """Returns a plain model of a configuration that is to be filled. loading: arguments of the library."""
    with no_init_weights():
        model = auto_class(config).from_config(config, **{"dtype": torch.get_default_dtype()} | loading)
    model.tie_weights()  # the library does this when it initialises
    return model


def load_base(config, token: str | None = None, **loading) -> PreTrainedModel:
    """Returns the plain model that a configuration refers to, which may be that of a run of one expert.

    loading: dtype, and other arguments of the library. Raises InputError.
    """
    place, path = config.base_model, Path(config.base_model)
    if not path.exists() and (path.is_absolute() or not is_hub_name(place)):
        raise InputError(
            f"{place}: not found; it has the model that the experts were trained on. Move it back, or change "
            "base_model in the config.json of the experts"
        )
    if path.is_file():
        with problem_context(f"{place}: "):
            return fill_plain(empty(config.backbone, **loading), load_vanilla_checkpoint(place))
    if saved_kind(folder := local_folder(place, token=token)) in MIXTURES:
        options = loading | {"dtype": torch.float32}
        load = partial(auto_class(config.backbone).from_pretrained, folder, **options)
        run, _ = load_checked(lambda: (load(), {"missing_keys": ()}), place, "not a valid run")
        if run.config.num_experts > 1:
            now = f"a mixture of {run.config.num_experts} experts"
            raise InputError(f"{place}: not the model that the experts were trained on: it is {now}")
        return fill_plain(empty(config.backbone, **loading), run.to_plain(dtype=torch.float32).state_dict())
    return load_backbone(place, config.backbone, **loading)


def fill_plain(model: PreTrainedModel, state: Mapping[str, Tensor]) -> PreTrainedModel:
    """Returns the model, with these weights; files are read with the names of a BART, with "model."."""
    check_not_quantized(model.config, "other weights cannot be loaded into it; give their folder as --model")
    own = model.state_dict().keys()
    named = {name if name in own else name.removeprefix("model."): t for name, t in state.items()}
    # Experts stay, and old files of a BART lack the bias, which is 0.
    fill(model, named, lambda name: is_of_base(name) and name != "final_logits_bias")
    return model


def fill(model: nn.Module, state: dict[str, Tensor], needs: Callable[[str], bool]) -> None:
    """Copies tensors into a model. Raises InputError if they do not fit.

    needs: whether a tensor of a name of the model must be among them.
    """
    untie_head(model, state)
    own = model.state_dict(keep_vars=True)
    filled = {id(own[name]) for name in state if name in own}  # under one of the names of a tied tensor
    wrong = [name for name, tensor in own.items() if id(tensor) not in filled and needs(name)]
    wrong += [n for n, t in state.items() if n not in own or own[n].shape != t.shape]
    if wrong:
        raise InputError(f"these are not the weights of the model; missing, or other ones: {in_short(wrong)}")
    model.load_state_dict(state, strict=False)


def untie_head(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Gives the projection to the vocabulary its own weights, if they differ from the embeddings in a state.

    No configuration says that of a Flan-T5 or mT5; transformers finds it in the files, too.
    """
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    names = {id(module): f"{name}.weight" for name, module in model.named_modules()}
    own, shared = (state.get(names[id(module)]) for module in (head, embeddings))
    if head.weight is not embeddings.weight or own is None or shared is None or torch.equal(own, shared):
        return
    head.weight = nn.Parameter(torch.empty_like(head.weight), head.weight.requires_grad)
    for part in model.modules():
        if isinstance(part, PreTrainedModel):  # otherwise a copy with experts would be tied again
            for name in list(part.all_tied_weights_keys):
                if part.get_parameter(name) is head.weight:
                    del part.all_tied_weights_keys[name]
