"""Makes the `Accelerator` of a command: its device, its precision, and the processes that share its work."""

import os
import shutil
import subprocess
from datetime import timedelta
from functools import cache

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import GradScalerKwargs, InitProcessGroupKwargs

from dataloader.errors import InputError
from routing_moe.io.precision import chosen_precision, uses_cpu

# Timeout of collectives. It must exceed the longest evaluation or checkpoint, which torch's default of 10
# minutes does not.
LONGEST_WAIT = timedelta(days=1)
# Initial loss scale of fp16. Losses are sums over hundreds of tokens: at torch's default of 2**16 the first
# steps overflow and are skipped until the scale is small enough. The scaler increases it again when it can.
LOSS_SCALE = 2.0**8
ALLOCATOR_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")  # the second since torch 2.9


def make_accelerator(mixed_precision: str | None = None) -> Accelerator:
    """Returns the Accelerator of a command. Products of float32 on CUDA are computed in TF32 from now on.

    mixed_precision: that of the flag; None for the value of `accelerate launch`. Raises InputError.
    """
    prepare_gpu()
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
    check_processes(accelerator.num_processes)
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise InputError(f"{flag}, which needs a GPU; on a CPU give bf16 or no")  # accelerate ignores it
    if accelerator.mixed_precision == "no" and accelerator.device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # allows TF32
    return accelerator


def command_device() -> torch.device:
    """Returns the device of a command without an Accelerator. Raises InputError as `make_accelerator`."""
    prepare_gpu()
    state = PartialState(cpu=uses_cpu())  # which does not read the variable itself
    check_processes(state.num_processes)
    return state.device


def check_processes(number: int) -> None:
    """Raises InputError if this is one of several processes without a group, which would all do all work."""
    wanted = os.environ.get("WORLD_SIZE", "1")
    if number == 1 and wanted.strip().isdecimal() and int(wanted) > 1:
        raise InputError(
            f"WORLD_SIZE is {wanted}, but torch formed no group of processes: with several on CPUs, set "
            "ACCELERATE_USE_CPU=true in the environment; for a single one, unset WORLD_SIZE"
        )


def prepare_gpu() -> None:
    """Chooses attention kernels and memory segments that suit texts of varying lengths.

    cuDNN's attention, which torch 2.11 and newer prefer in bf16 on Hopper and Blackwell, makes a plan for
    each new shape, and has known wrong results (pytorch issues 193893 and 196678). Segments that can grow
    avoid fragmentation; torch reads the variable at the first allocation on a GPU. Raises InputError.
    """
    check_gpu()
    torch.backends.cuda.enable_cudnn_sdp(False)
    if torch.cuda.is_available() and not any(os.environ.get(name) for name in ALLOCATOR_VARIABLES):
        os.environ[ALLOCATOR_VARIABLES[0]] = "expandable_segments:True"


@cache  # a command may make an Accelerator for each of its tasks
def check_gpu() -> None:
    """Raises InputError if the machine has a GPU that torch cannot use, unless ACCELERATE_USE_CPU is set."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or uses_cpu()
    if torch.cuda.is_available() or hidden or not shutil.which("nvidia-smi"):
        return
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return
    if names := [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]:
        built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs only"
        raise InputError(
            f"this machine has {names[0]}, but torch {torch.__version__}, built for {built_for}, cannot use "
            "it: update the driver, install a torch that is built for it (https://pytorch.org/get-started), "
            "or correct CUDA_VISIBLE_DEVICES; with ACCELERATE_USE_CPU=true in the environment, the command "
            "runs on the CPU"
        )
