"""Loads the weights of a plain BART, from the file that a flag names, into a model."""

from torch import Tensor

from dataloader.errors import fault_context
from routing_moe.model.conversion import load_plain_weights
from routing_moe.model.loading import load_vanilla_checkpoint


def load_vanilla_weights(
    model,
    path: str,
    init_eps: float,
    flag: str = "vanilla_checkpoint",
    content: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Loads the weights of a plain BART into every expert of `model`; returns the content of the file.

    flag: the flag that names the file. content: that of the file, None: read it. Raises InputError that names
    flag and file.
    """
    if content is None:
        with fault_context(f"--{flag} "):
            content = load_vanilla_checkpoint(path)
    with fault_context(f"--{flag} {path}: "):
        load_plain_weights(model, content, init_eps)
    return content
