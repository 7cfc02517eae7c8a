"""Turns out-of-memory errors into one error that names the flags that reduce memory."""

import re
import resource
from contextlib import contextmanager

# In the messages of RuntimeErrors from torch's CPU allocator, from CUDA, and from cuBLAS.
SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
WANTED = re.compile(r"[Tt]ried to allocate ([\d.]+ \w+)|Unable to allocate ([\d.]+ \w+)")
SAME_RESULTS = ("max_tokens_per_micro_batch", "predict_batch_size", "num_workers")
OTHER_RESULTS = ("num_experts", "num_beams")


class OutOfMemory(RuntimeError):
    """Memory ran out; the message names the flags that help."""


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that GPU or CPU memory ran out."""
    import torch  # takes seconds, which `--help` and errors in flags need not wait for

    if isinstance(error, MemoryError | torch.OutOfMemoryError | OutOfMemory):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


@contextmanager
def naming_memory_flags(settings):
    """Turns out-of-memory errors in the block into OutOfMemory. settings: an attribute for each flag."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, OutOfMemory) or not is_out_of_memory(error):
            raise
        match = WANTED.search(str(error))
        size = f" ({match[1] or match[2]} requested)" if match else ""
        raise OutOfMemory(f"out of memory{size}: {memory_flags(settings)}") from None


def memory_flags(settings) -> str:
    """Returns the flags of a command that reduce memory, in words."""
    smaller, others = (
        " or ".join(f"--{name}" for name in names if hasattr(settings, name))
        for names in (SAME_RESULTS, OTHER_RESULTS)
    )
    ways = [f"give a smaller {smaller}"] if smaller else []
    ways += [f"with other results a smaller {others}, or --mixed_precision bf16"] if others else []
    return "; ".join(ways) or "no flag of this command reduces memory"


def peak_memory_gb() -> float:
    """Returns peak memory in GB: of the GPU if one was used, else the process's resident set."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
