"""What commands run on: the GPUs of this machine, or its CPU."""

import os
import subprocess
from functools import cache


def precision(mixed_precision: str | None) -> str | None:
    """Returns the value of --mixed_precision; None for "no"."""
    chosen = mixed_precision or ("auto" if gpus() else "no")
    return None if chosen == "no" else chosen


def gpus() -> list[str]:
    """Returns the names of the GPUs that commands will use, by nvidia-smi; [] if accelerate is to use the CPU."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on", "y", "t"):
        return []
    names = installed_gpus()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return names
    return names[: sum(gpu.strip() not in ("", "-1") for gpu in visible.split(","))]


@cache  # a driver may take seconds
def installed_gpus() -> list[str]:
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):  # a driver that hangs is not waited for
        return []
    return [
        line.partition(": ")[2].partition(" (UUID")[0]
        for line in listed.splitlines()
        if line.startswith("GPU ")
    ]


def device() -> str:
    """Returns what commands run on, such as "2 GPUs (NVIDIA A100)"."""
    names = gpus()
    return f"{len(names)} GPU{'s' * (len(names) > 1)} ({names[0]})" if names else "CPU"
