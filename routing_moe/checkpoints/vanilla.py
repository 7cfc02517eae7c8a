"""Loads the weights of a plain BART, from the file that a flag names, into a model."""

from dataloader.errors import fault_context
from routing_moe.model.conversion import load_plain_weights
from routing_moe.model.loading import load_vanilla_checkpoint


def load_vanilla_weights(model, path: str, init_eps: float, flag: str = "vanilla_checkpoint") -> None:
    """Loads the weights of a plain BART into every expert of `model`.

    flag: the flag that names the file. Raises InputError that names flag and file.
    """
    with fault_context(f"--{flag} "):
        weights = load_vanilla_checkpoint(path)
    with fault_context(f"--{flag} {path}: "):
        load_plain_weights(model, weights, init_eps)
