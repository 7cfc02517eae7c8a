"""Creates the `Accelerator` of a command: device, precision, and distributed processes."""

import os
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import GradScalerKwargs, InitProcessGroupKwargs

from dataloader.errors import InputError

# Timeout of collectives. It must exceed the longest evaluation or checkpoint, which torch's default of 10
# minutes does not.
LONGEST_WAIT = timedelta(days=1)
# Initial loss scale of fp16. Losses are sums over hundreds of tokens: at torch's default of 2**16 the first
# steps overflow and are skipped until the scale is small enough. The scaler increases it again when it can.
LOSS_SCALE = 2.0**8


def make_accelerator(mixed_precision: str | None = None) -> Accelerator:
    """Returns the Accelerator of a command.

    mixed_precision: None for the value of `accelerate launch`.
    Raises InputError for a precision that the device does not support.
    """
    precision = chosen_precision(mixed_precision)
    flag = f"--mixed_precision is {precision}" + ("" if mixed_precision else " (accelerate launch)")
    handlers = [InitProcessGroupKwargs(timeout=LONGEST_WAIT), GradScalerKwargs(init_scale=LOSS_SCALE)]
    try:
        accelerator = Accelerator(mixed_precision=mixed_precision, kwargs_handlers=handlers)
    except ValueError as error:
        if not str(error).startswith(f"{precision} mixed precision requires"):
            raise
        other = "fp16" if precision == "bf16" else "bf16"
        raise InputError(f"{flag}, which this device does not support; give {other} or no") from None
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise InputError(f"{flag}, which needs a GPU; on a CPU give bf16 or no")  # accelerate ignores it
    return accelerator


def precision_faults(settings) -> list[str]:
    """Returns a fault if this machine does not support `settings.mixed_precision`, else []."""
    if settings.mixed_precision == "fp16" and not torch.cuda.is_available():
        return ["--mixed_precision is fp16, which needs a GPU; on a CPU give bf16 or no"]
    return []


def chosen_precision(mixed_precision: str | None) -> str:
    """Returns the value of --mixed_precision, else that of `accelerate launch`, else "no"."""
    return mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
