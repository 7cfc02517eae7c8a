"""Copies to a device without a wait for it."""

from torch import Tensor, device


def sent(tensor: Tensor, to: device) -> Tensor:
    """Returns the tensor on the device `to`.

    A GPU works behind the CPU. It fetches a tensor in pinned memory when its work is that far, while the CPU
    goes on; for other memory the CPU waits.
    """
    if tensor.device == to or to.type in ("cpu", "meta"):
        return tensor.to(to)
    return (tensor.pin_memory() if tensor.device.type == "cpu" else tensor).to(to, non_blocking=True)
