"""The flags of `routing-moe parallel`."""

from dataclasses import dataclass

from routing_moe.config.flags import AT_LEAST_1, Command, group

RUNNING = group("where commands run")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class ParallelSettings(Command):
    program = "routing-moe parallel"
    usage = "[--jobs N] [flags, see --help] < LINES"

    jobs: int = RUNNING(1, "commands that run at the same time; they divide the visible GPUs (CUDA_VISIBLE_DEVICES) and the cores (OMP_NUM_THREADS, unless it is set)", range=AT_LEAST_1)
    dry_run: bool = RUNNING(False, "only print the commands whose results are missing, one per line")
# fmt: on
