"""A shell command that writes a result file, with a log beside its run folder."""

import fcntl
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from routing_moe.io.executor import GPUS, worker_environment

LAST_LINES, LAST_BYTES = 5, 4000  # shown of a log


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

    def end_of_log(self) -> list[str]:
        """Returns the last lines of the log, [] if there is none."""
        if not self.log.is_file():
            return []
        with self.log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LAST_BYTES))
            return file.read().decode(errors="replace").splitlines()[-LAST_LINES:]


def run_job(job: Job, environment: dict[str, str], tells: bool) -> float:
    """Runs a job with an environment; returns its seconds. Raises RuntimeError if it fails.

    Ctrl-C is passed on to the command, and raised when that has ended. Waits while another command writes to
    the same log, also one of a caller that was killed. tells: whether a line says that it starts.
    """
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until the command has closed it, too
        except BlockingIOError:
            _tell(f"waiting for the command that writes {job.log}")
            fcntl.flock(log, fcntl.LOCK_EX)
        if job.result.is_file():  # by the other command
            return 0.0
        if tells:
            _tell(f"started: {job.result}")
        began = time.monotonic()
        code, interrupted = _call(job.command, log, environment)
    if code and job.result.is_file():  # that of an earlier state, or of what did not fail
        job.result.rename(job.result.with_name(f"incomplete-{job.result.name}"))
    if interrupted:
        raise KeyboardInterrupt
    if not job.result.is_file():
        raise RuntimeError(
            f"exit code {code}" if code else "no error, but its command did not write this file"
        )
    return time.monotonic() - began


def _call(command: str, log, environment: dict[str, str]) -> tuple[int, bool]:
    """Returns the exit code, and whether Ctrl-C came; passes it on to all processes of the command."""
    of_worker = (*worker_environment(1), GPUS)
    own = {name: os.environ[name] for name in of_worker if name in os.environ}
    received, interrupted = [], False
    signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray blocks it, also for the command
    process = subprocess.Popen(
        ["bash", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment | own,
        start_new_session=True,
    )
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    while process.poll() is None:
        time.sleep(0.1)  # Ray's interruption does not end a longer one
        while received:
            interrupted = True
            os.killpg(process.pid, received.pop())
    return process.returncode, interrupted or bool(received)


def _tell(line: str) -> None:
    os.write(2, f"{line}\n".encode(errors="surrogateescape"))
