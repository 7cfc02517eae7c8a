"""How layers run in training: without keeping their activations, or compiled."""

import torch

from routing_moe.model.injection import stacks

# Compiled graphs of a layer: encoder or decoder, with and without gradient or padding, one or several
# examples; 8 for each of the 24 layers of bart-large with low-rank experts. Beyond it layers run as they are.
MOST_GRAPHS = 192


def checkpoint_layers(model) -> None:
    """Lets layers keep no activations in training."""
    name = "activation_checkpointing_enable"  # since transformers 5.24
    enable = getattr(model, name, None) or model.gradient_checkpointing_enable
    enable()


def compile_layers(model) -> None:
    """Compiles the layers for any shape at their first use in training; names of weights stay.

    Elsewhere they run as they are: a decoder with a cache would be compiled again for every token.
    """
    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    sides = [model.get_encoder()] if model.config.is_encoder_decoder else []
    sides.append(model.get_decoder())
    for layer in (layer for side in sides for layers in stacks(side).values() for layer in layers):
        for expert in getattr(layer, "experts", [layer]):
            expert.compile(dynamic=True)
    torch.compiler.set_stance("force_eager")
