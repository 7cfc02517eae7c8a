"""Experts that share a base: each is base + delta, and both are trained (`--shared_base`).

Only the sums are kept. The gradient by a delta is that of its expert, and the gradient by the base is the sum
of those of all experts, so AdamW can step deltas and base without knowing either: a step of an expert is its
own plus that of the base. With equal rates, weight decay of the experts is that of base and deltas.
"""

import torch
from torch import nn


class SharedBase:
    """The steps of the base of complete experts, 0 between optimizer steps; experts: their parameters."""

    def __init__(self, model):
        self.experts = [
            of_experts
            for layer in model.routed_layers()
            for of_experts in zip(*(expert.parameters() for expert in layer.experts), strict=True)
            if of_experts[0].requires_grad
        ]
        self.steps = [nn.Parameter(torch.zeros_like(own[0])) for own in self.experts]

    def collect_gradients(self) -> None:
        """Sets the gradients of the base to the sums of those of the experts, which all have one."""
        for step, own in zip(self.steps, self.experts, strict=True):
            if step.requires_grad:  # else alternating updates freeze the experts
                step.grad = sum(p.grad for p in own)

    @torch.no_grad()
    def apply(self) -> None:
        """Adds the steps to all experts, and sets them to zero."""
        for step, own in zip(self.steps, self.experts, strict=True):
            for parameter in own:
                parameter.add_(step)
            step.zero_()
