"""The flags of `routing-moe parallel`."""

from dataclasses import dataclass

from routing_moe.config.flags import AT_LEAST_1, Command, Range, group

RUNNING = group("where commands run")
GPUS = Range(lambda value: 0 <= value <= 1 or value % 1 == 0 < value, "a whole number or a fraction of 1")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class ParallelSettings(Command):
    program = "routing-moe parallel"

    jobs: int = RUNNING(1, "commands that run at the same time; they divide the visible GPUs (CUDA_VISIBLE_DEVICES) and the cores (OMP_NUM_THREADS, unless it is set)", range=AT_LEAST_1)
    ray: str | None = RUNNING(None, "address of a Ray cluster that runs the commands, HOST:PORT or auto; its machines share the folders, and give each job the GPUs and cores of the next flags (default: this machine runs them)", metavar="ADDRESS")
    gpus_per_job: float | None = RUNNING(None, "with --ray: GPUs of a job, of one machine; 0.5: two jobs share one (default: 1 if the cluster has GPUs, else 0)", range=GPUS)
    cpus_per_job: int = RUNNING(1, "with --ray: cores of a job, and its OMP_NUM_THREADS unless that is set", range=AT_LEAST_1)
    dry_run: bool = RUNNING(False, "only print the commands whose results are missing, one per line")
# fmt: on
