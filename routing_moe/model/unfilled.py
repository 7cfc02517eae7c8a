"""Builds a model whose weights will be loaded, without drawing the random weights of a new one.

Initialising a bart-base with three experts draws a billion numbers, which takes most of the time of building
it. Only router and task vectors are initialised here. The other draws are made without filling weights, so
that torch's global generator ends in the same state: noise and routes that are drawn later are the same.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

BLOCK = 2**18  # numbers that are drawn at once, so that they stay in the cache
COUNTED = {torch.ops.aten.uniform_.default: 1, torch.ops.aten.normal_.default: 16}  # at least so many numbers


def unfilled_model(cls, config):
    """Returns `cls(config)` with uninitialised instead of random weights, except router and task vectors."""
    start = torch.get_rng_state()
    with SkippedDraws() as skipped:
        model = cls(config)
    routing = [part for part in (model.router, model.task_vectors) if part is not None]
    with SkippedDraws() as last:  # the library initialises them after all layers
        for part in routing:
            part.apply(model._init_weights)
    if not skipped.is_counted:
        torch.set_rng_state(start)
        return cls(config)
    advance(skipped.draws - last.draws)
    for part in routing:
        part.apply(model._init_weights)
    return model


class SkippedDraws(TorchDispatchMode):
    """Leaves tensors as they are instead of filling them with random numbers, and counts these.

    draws: words of 32 bits that the generator would have given. is_counted: False if a kind of draw
    occurred whose number of words is not known here.
    """

    draws, is_counted = 0, True

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **(kwargs or {}))
        filled = args[0]
        if func not in COUNTED or not is_plain(filled) or 0 < filled.numel() < COUNTED[func]:
            self.is_counted = False
            return func(*args, **(kwargs or {}))
        # Normal numbers are made in rows of 16; the last row is drawn again if it is not full.
        refilled = 16 if COUNTED[func] == 16 and filled.numel() % 16 else 0
        self.draws += filled.numel() + refilled
        return filled


def is_plain(tensor: Tensor) -> bool:
    """Returns whether a word is drawn for each number of the tensor."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.is_contiguous()


def advance(n: int) -> None:
    """Sets torch's global generator to the state after n more draws of 32 bits."""
    block = torch.empty(BLOCK, dtype=torch.float32, device="cpu")
    for _ in range(n // BLOCK):
        block.uniform_()
    block[: n % BLOCK].uniform_()
