"""Compiled layers: torch.compile of each BART layer, for any shape, in the steps of training only.

    compile_layers(model)
    with compiled():
        model(...)

Outside of the block layers run as they are: a decoder with a cache would be compiled again for every token.
"""

from contextlib import AbstractContextManager

import torch

# Graphs of a layer: encoder or decoder, with and without gradient, with and without padding, one or several
# examples. Layers with low-rank experts have graphs of their own, because each reads its row of the routes:
# 8 for each of the 24 layers of bart-large. torch's own limit is 8, beyond which it runs layers as they are.
MOST_GRAPHS = 192


def compile_layers(model, backend: str = "inductor") -> None:
    """Compiles the layers of a routing BART at their first use in `compiled()`; names of weights stay."""
    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    for layer in model.single_layers():
        layer.compile(dynamic=True, backend=backend)
    torch.compiler.set_stance("force_eager")


def compiled() -> AbstractContextManager:
    """Returns the context in which compiled layers run."""
    return torch.compiler.set_stance("default")
