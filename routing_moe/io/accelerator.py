"""Makes the `Accelerator` of a command: its device, its precision, and the processes that share its work."""

from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import GradScalerKwargs, InitProcessGroupKwargs

from dataloader.errors import InputError
from routing_moe.io.precision import chosen_precision

# Timeout of collectives. It must exceed the longest evaluation or checkpoint, which torch's default of 10
# minutes does not.
LONGEST_WAIT = timedelta(days=1)
# Initial loss scale of fp16. Losses are sums over hundreds of tokens: at torch's default of 2**16 the first
# steps overflow and are skipped until the scale is small enough. The scaler increases it again when it can.
LOSS_SCALE = 2.0**8


def make_accelerator(mixed_precision: str | None = None) -> Accelerator:
    """Returns the Accelerator of a command. Products of float32 on CUDA are computed in TF32 from now on.

    mixed_precision: that of the flag; None for the value of `accelerate launch`.
    Raises InputError for a precision that the device does not support.
    """
    precision = chosen_precision(mixed_precision)
    flag = f"--mixed_precision is {precision}" + ("" if mixed_precision else " (accelerate launch)")
    handlers = [InitProcessGroupKwargs(timeout=LONGEST_WAIT), GradScalerKwargs(init_scale=LOSS_SCALE)]
    try:
        accelerator = Accelerator(mixed_precision=precision, kwargs_handlers=handlers)
    except ValueError as error:
        if not str(error).startswith(f"{precision} mixed precision requires"):
            raise
        other = "fp16" if precision == "bf16" else "bf16"
        raise InputError(f"{flag}, which this device does not support; give {other} or no") from None
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise InputError(f"{flag}, which needs a GPU; on a CPU give bf16 or no")  # accelerate ignores it
    if accelerator.mixed_precision == "no" and accelerator.device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # allows TF32
    return accelerator
