"""A shell command that writes a result file, with a log beside its run folder."""

import fcntl
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from routing_moe.io.executor import worker_environment
from routing_moe.io.memory import WORKERS_OF_GPU

SET_FOR_WORKERS = (*worker_environment(1), "CUDA_VISIBLE_DEVICES", WORKERS_OF_GPU)
LAST_LINES = 5  # shown of a log


@dataclass(frozen=True)
class Job:
    """A command and the file that it writes last."""

    result: Path
    command: str

    @property
    def log(self) -> Path:
        """RUN.log for RUN/best/FILE and RUN/FILE."""
        folder = self.result.parent.parent if self.result.parent.name == "best" else self.result.parent
        return Path(f"{self.result if folder == Path() else folder}.log")

    def end_of_log(self) -> str:
        """Returns the last lines, of progress bars their last state."""
        text = self.log.read_bytes().decode(errors="replace") if self.log.is_file() else ""
        lines = text.rstrip().split("\n")[-LAST_LINES:]
        return "\n".join("    " + line.rstrip("\r").split("\r")[-1] for line in lines)


class JobFailed(RuntimeError):
    """The message says how the command ended."""


def run_job(job: Job, environment: dict[str, str], tells: bool) -> float:
    """Runs a job with an environment; returns its seconds. Raises JobFailed.

    Ctrl-C is passed on to the command, and raised when that has ended. Waits while another command writes to
    the same log, also one of a caller that was killed. tells: whether a line says that it starts.
    """
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)  # until the command has closed it, too
        if job.result.is_file():  # by the other command
            return 0.0
        if tells:
            os.write(2, f"started: {job.result}\n".encode(errors="surrogateescape"))
        began = time.monotonic()
        own = {name: os.environ[name] for name in SET_FOR_WORKERS if name in os.environ}
        code = _exit_code(job.command, log, environment | own)
    if job.result.is_file():
        if code == 0:
            return time.monotonic() - began
        job.result.rename(job.result.with_name(f"incomplete-{job.result.name}"))
    raise JobFailed(f"exit code {code}" if code else "it ended without an error, but did not write this file")


def _exit_code(command: str, log, environment: dict[str, str]) -> int:
    processes, received = [], []

    def pass_on(*signal_and_frame) -> None:
        received.append(signal_and_frame)
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)  # trainings save their state

    before = signal.signal(signal.SIGINT, pass_on)
    streams = dict(stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray blocks it, also for the command
    try:
        processes.append(
            subprocess.Popen(["bash", "-c", command], env=environment, start_new_session=True, **streams)
        )
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if received:
            pass_on()
        while processes[0].poll() is None:
            time.sleep(0.1)  # Ray's interruption does not end a longer one
    finally:
        signal.signal(signal.SIGINT, before)
    if received:
        raise KeyboardInterrupt
    return processes[0].returncode
