"""NCCL's rules for collectives, checked on CPUs, where gloo takes tensors that NCCL rejects."""

import torch
from torch import distributed
from torch.utils import _pytree

CHECKED = ("broadcast", "all_reduce", "reduce", "all_gather", "all_gather_into_tensor", "gather", "scatter")


def enforce() -> None:
    """Makes collectives raise ValueError for tensors that NCCL rejects."""
    for name in CHECKED:
        setattr(distributed, name, strict(name, getattr(distributed, name)))


def strict(name: str, collective):
    def checked(*arguments, **named):
        leaves = _pytree.tree_leaves((arguments, named))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        if not all(tensor.is_contiguous() for tensor in tensors):
            raise ValueError(f"{name}: Tensors must be contiguous")
        own = [name, *((tuple(tensor.shape), str(tensor.dtype)) for tensor in tensors)]
        of_all = [None] * distributed.get_world_size()
        distributed.all_gather_object(of_all, own)
        if any(other != own for other in of_all):
            raise ValueError(f"{name}: other tensors than in the other processes: {of_all}")
        return collective(*arguments, **named)

    return checked
