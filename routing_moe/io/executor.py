"""Calls of one function: in this process, or in worker processes that share the GPUs.

Both yield (key, outcome) in the order in which the calls end. An outcome is the function's result, or the
exception that it raised, with its traceback as a note. If a generator is closed or interrupted, the current
calls are interrupted (KeyboardInterrupt), and it returns when they have ended.
"""

import gc
import os
from collections.abc import Callable, Hashable, Mapping

from routing_moe.io.processes import Outcomes, outcome_of, run_in_processes

GPUS = "CUDA_VISIBLE_DEVICES"
DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # devices of NVIDIA, AMD, and of Windows in WSL


def run_calls(function: Callable, calls: Mapping[Hashable, tuple], workers: int) -> Outcomes:
    """Runs the calls, {key: arguments}, in `workers` processes that are reused; of one, in this process."""
    workers = min(workers, len(calls))
    if workers > 1:
        yield from run_in_processes(function, calls, environments(workers))
        return
    for key, arguments in calls.items():
        outcome = outcome_of(function, arguments)
        yield key, outcome
        if isinstance(outcome, Exception):
            gc.collect()
            import torch  # takes seconds, which checks need not wait for

            if torch.cuda.is_available():  # after out of memory, the next call may need less
                torch.cuda.empty_cache()


def environments(workers: int) -> list[dict[str, str]]:
    """Returns the variables to set before a worker's imports: its cores and GPUs, and no progress bars.

    There are several GPUs for each of few workers, one for several of many.
    """
    threads, gpus = max(1, (os.cpu_count() or 1) // workers), visible_gpus()
    asked = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    common = asked | {name: os.environ[name] for name in asked if name in os.environ} | {"TQDM_DISABLE": "1"}
    if not gpus:
        return [common] * workers
    return [common | {GPUS: ",".join(gpus[worker % len(gpus) :: workers])} for worker in range(workers)]


def visible_gpus() -> list[str]:
    """Returns the names of the GPUs that a new process can use."""
    named = os.environ.get(GPUS)
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    if not any(map(os.path.exists, DRIVERS)):
        return []
    import torch  # takes seconds

    return [str(i) for i in range(torch.cuda.device_count())]
