"""Shell commands that each write a result file, several at a time, with a log beside the run folder."""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from routing_moe.io.executor import environments

LAST_LINES, LAST_BYTES = 5, 4000  # shown of a log
PAUSE = 0.1  # seconds between two looks at the running commands


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


@dataclass
class Running:
    """A job that has begun; it has no process while another command writes to its log."""

    job: Job
    environment: dict[str, str]
    log: IO[bytes]
    process: subprocess.Popen | None = None
    began: float = field(default_factory=time.monotonic)


def run_jobs(
    jobs: Sequence[Job], at_once: int, say: Callable[[str], None]
) -> Iterator[tuple[Job, str, float]]:
    """Yields (job, error or "", seconds) as the jobs end. They share the GPUs and cores.

    If the generator is interrupted (KeyboardInterrupt) or closed, it passes Ctrl-C on to the running
    commands, and waits until they have ended. say: reports what waits and starts.
    """
    waiting, running, free = list(jobs), [], environments(min(at_once, len(jobs)))
    try:
        while waiting or running:
            while waiting and free:
                running.append(begin(waiting.pop(0), free.pop(0), say))
            for run in list(running):
                if run.process is None:
                    start(run, say)
                elif run.process.poll() is not None:
                    running.remove(run)
                    free.append(run.environment)
                    yield run.job, end(run), time.monotonic() - run.began
            time.sleep(PAUSE)
    finally:
        while running:
            with suppress(KeyboardInterrupt):  # a further one interrupts the commands again
                for run in running:
                    if run.process is not None and run.process.poll() is None:
                        os.killpg(run.process.pid, signal.SIGINT)
                for run in list(running):
                    if run.process is not None:
                        run.process.wait()
                        end(run)
                    running.remove(run)


def begin(job: Job, environment: dict[str, str], say: Callable[[str], None]) -> Running:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    run = Running(job, environment, job.log.open("ab"))
    start(run, say)
    if run.process is None:
        say(f"waiting for the command that writes {job.log}")
    return run


def start(run: Running, say: Callable[[str], None]) -> None:
    """Starts the command unless another one, also of a caller that was killed, writes to the same log."""
    try:
        fcntl.flock(run.log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until the command has closed it, too
    except BlockingIOError:
        return
    is_done = run.job.result.is_file()  # by the other command
    if not is_done:
        say(f"started: {run.job.result}")
    run.began = time.monotonic()
    run.process = subprocess.Popen(
        ["bash", "-c", "true" if is_done else run.job.command],
        stdin=subprocess.DEVNULL,
        stdout=run.log,
        stderr=subprocess.STDOUT,
        env=os.environ | run.environment,
        start_new_session=True,
    )


def end(run: Running) -> str:
    """Returns why a command failed, or "". The result of a failed one becomes incomplete-NAME."""
    run.log.close()
    result, code = run.job.result, run.process.returncode
    if code and result.is_file():  # that of an earlier state, or of what did not fail
        result.rename(result.with_name(f"incomplete-{result.name}"))
    if result.is_file():
        return ""
    return f"exit code {code}" if code else "no error, but its command did not write this file"
