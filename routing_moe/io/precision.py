"""The precision of matrix products, from flags and `accelerate launch`."""

import os


def precision_faults(settings) -> list[str]:
    """Returns a fault if this machine does not support `settings.mixed_precision`, else []."""
    if settings.mixed_precision == "fp16":
        import torch  # imported here because it takes seconds

        if not torch.cuda.is_available():
            return ["--mixed_precision is fp16, which needs a GPU; on a CPU give bf16 or no"]
    return []


def chosen_precision(mixed_precision: str | None) -> str:
    """Returns "no", "bf16" or "fp16": by --mixed_precision, else that of `accelerate launch`, else "no"."""
    if mixed_precision == "auto":
        import torch

        # An emulated bf16, which older GPUs have, is slower than float32.
        supported = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if supported else "no"
    return mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
