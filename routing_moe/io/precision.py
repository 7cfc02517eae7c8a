"""The precision of matrix products that flags and `accelerate launch` ask for."""

import os


def precision_faults(settings) -> list[str]:
    """Returns a fault if this machine does not support `settings.mixed_precision`, else []."""
    if settings.mixed_precision == "fp16":
        import torch  # takes seconds, hence only where it is needed

        if not torch.cuda.is_available():
            return ["--mixed_precision is fp16, which needs a GPU; on a CPU give bf16 or no"]
    return []


def chosen_precision(mixed_precision: str | None) -> str:
    """Returns the value of --mixed_precision, else that of `accelerate launch`, else "no"."""
    return mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
