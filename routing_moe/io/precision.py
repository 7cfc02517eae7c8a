"""The precision of matrix products, from flags and `accelerate launch`."""

import os


def uses_cpu() -> bool:
    """Returns whether ACCELERATE_USE_CPU keeps commands off the GPU."""
    from accelerate.utils import parse_flag_from_env  # imports torch, which takes seconds

    return parse_flag_from_env("ACCELERATE_USE_CPU")


def precision_problems(settings) -> list[str]:
    """Returns a problem if this machine does not support `settings.mixed_precision`, else []."""
    if settings.mixed_precision == "fp16":
        import torch  # imported here because it takes seconds

        if not torch.cuda.is_available() or uses_cpu():
            return ["--mixed_precision is fp16, which needs a GPU; on a CPU give bf16 or no"]
    return []


def chosen_precision(mixed_precision: str | None) -> str:
    """Returns "no", "bf16" or "fp16" of --mixed_precision, else of `accelerate launch`, else of "auto"."""
    wanted = mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "auto")
    if wanted == "auto":
        import torch

        # An emulated bf16, which older GPUs have, is slower than float32.
        on_gpu = torch.cuda.is_available() and not uses_cpu()
        return "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return wanted
