"""Turns out-of-memory errors into one error that names the flags that reduce memory."""

import os
import re
import resource
from contextlib import contextmanager

from routing_moe.io.precision import chosen_precision

# In the messages of RuntimeErrors from torch's CPU allocator, from CUDA, and from cuBLAS.
SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
WANTED = re.compile(r"[Tt]ried to allocate ([\d.]+ \w+)|Unable to allocate ([\d.]+ \w+)")
SAME_RESULTS = ("max_tokens_per_micro_batch", "predict_batch_size", "num_workers")
OTHER_RESULTS = ("num_beams",)
# Defaults of flags on a CPU; on a GPU they are chosen from its free memory.
ON_CPU = {"max_tokens_per_micro_batch": 16384, "predict_batch_size": 32}
# In the environment: the number of workers, or of jobs of a script, that share the GPU of a process.
WORKERS_OF_GPU = "ROUTING_MOE_WORKERS_OF_GPU"
OF_TRAINING = {"max_tokens_per_micro_batch"}  # has no effect if a command has --do_train and it is not set


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
        found = WANTED.search(str(error))
        size = f" ({next(filter(None, found.groups()))} requested)" if found else ""
        raise OutOfMemory(f"out of memory{size}: {memory_flags(settings)}") from None


def memory_flags(settings) -> str:
    """Returns the flags that reduce memory, with their current values, except those at their minimum."""
    chosen = dict(vars(settings))
    if not chosen.get("do_train", True):
        chosen = {name: value for name, value in chosen.items() if name not in OF_TRAINING}
    smaller = [
        f"--{name} (now {_in_words(name, chosen[name])})" for name in SAME_RESULTS if chosen.get(name, 1) != 1
    ]
    others = smaller_model(settings)
    others += [f"--{name} (now {chosen[name]})" for name in OTHER_RESULTS if chosen.get(name, 0) > 1]
    if "mixed_precision" in chosen and chosen_precision(chosen["mixed_precision"]) == "no":
        others.append("--mixed_precision bf16")
    ways = ["give a smaller " + " or ".join(smaller)] if smaller else []
    ways += ["with different results: " + " or ".join(others)] if others else []
    return "; ".join(ways) or "no flag of this command reduces memory"


def smaller_model(settings) -> list[str]:
    """Returns the flags that reduce weights, gradients and optimizer state, of those that a command has."""
    given = vars(settings)
    if not given.get("do_train"):
        return []
    ways = []
    if given.get("initialize_from_vanilla") and given.get("num_experts") != 1:  # a checkpoint has its own
        now = f" (now {given['num_experts']})" if given["num_experts"] else ""
        ways.append(f"a smaller --num_experts{now}")
        if str(given["task_routes"]).startswith("clusters:"):
            ways.append(
                f"--task_routes clusters:K with fewer clusters (CLUSTERS; now {given['task_routes']})"
            )
        if given.get("expert_kind") != "lora":
            ways.append("--expert_kind lora")
        elif given["base_lr"]:
            ways.append(f"--base_lr 0 (now {given['base_lr']:g})")
        ways.append("layers without experts (--encoder_vanilla_layers, --decoder_vanilla_layers)")
    training = given.get("route_training")
    soft = given.get("moe_avg_route") or given.get("moe_random_route")  # without a plain equivalent
    if given.get("moe_init") and training not in ("plain", "merged", "logits"):
        ways.append(f"--route_training {'merged' if soft else 'plain'}")
    if given.get("freeze_embeds") is False and training != "logits":
        ways.append("--freeze_embeds")
    return ways


def _in_words(name: str, given: int | None) -> str:
    """Returns the value of a flag in words; None: not given, 0: no limit."""
    import torch

    if given is None:
        return "chosen from free memory" if torch.cuda.is_available() else str(ON_CPU[name])
    return str(given) if given else "0: no limit"


def workers_of_gpu() -> int:
    """Returns the number of processes that share the GPU of this one, by its environment."""
    return int(os.environ.get(WORKERS_OF_GPU) or 1)


def free_gpu_memory(device) -> int:
    """Returns the bytes of a GPU that this process can still allocate.

    If several workers share the GPU: at most its share of the total, because the others may allocate theirs
    later.
    """
    import torch

    free, total = torch.cuda.mem_get_info(device)
    used = torch.cuda.memory_allocated(device)
    kept_for_reuse = torch.cuda.memory_reserved(device) - used
    share = total // workers_of_gpu()
    return max(0, min(free + kept_for_reuse, share - used))


def peak_memory_gb() -> float:
    """Returns peak memory in GB: of the GPU if one was used, else the process's resident set."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
