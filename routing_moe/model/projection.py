"""The projection to the vocabulary, whose products are float32 wherever no gradient is needed."""

from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Projection(nn.Linear):
    """A linear layer that autocast affects only where gradients are recorded.

    In bf16, logits have 8 significant bits: close tokens or options get the same score. Training keeps the
    fast product. Evaluation projects few positions, of which it reads the order.
    """

    def forward(self, hidden: Tensor) -> Tensor:
        device = hidden.device.type
        # Of a view, such as the last positions, torch would copy the weight for each example: gigabytes.
        hidden = hidden.contiguous()
        if torch.is_grad_enabled() or hidden.is_meta or not torch.is_autocast_enabled(device):
            return super().forward(hidden)
        with torch.autocast(device, enabled=False), tf32_allowed(device):
            return super().forward(hidden.to(self.weight.dtype))


@contextmanager
def tf32_allowed(device: str):
    """Allows TF32 in the block on CUDA, as commands without mixed precision do: it is much faster."""
    before = torch.get_float32_matmul_precision()
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def project_in_float32(model) -> None:
    """Makes the vocabulary projection of a model a `Projection`, with the same tensor."""
    head = model.get_output_embeddings()
    if type(head) is nn.Linear:
        head.__class__ = Projection
