"""Shell commands that each write a result file, several at a time, with a log beside the run folder."""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from routing_moe.io.executor import environments

LAST_LINES, LAST_BYTES = 5, 4000  # shown of a log
HEADING = "---- {}\n"  # before the output of each command in a log, which results of a run folder share
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
        """Returns the last lines of the command in the log, [] if there is none."""
        if not self.log.is_file():
            return []
        with self.log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LAST_BYTES))
            own = file.read().decode(errors="replace").rpartition(HEADING.format(self.result))[2]
        return own.splitlines()[-LAST_LINES:]

    def start(self, environment: dict[str, str]) -> subprocess.Popen | None:
        """Starts the command; returns None if the log is that of a running one, also of a killed caller."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until the command has closed it, too
            except BlockingIOError:
                return None
            log.write(os.fsencode(HEADING.format(self.result)))
            log.flush()
            return subprocess.Popen(
                ["bash", "-c", self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
                start_new_session=True,
            )

    def error(self, code: int) -> str:
        """Returns why the command failed, or "". The result of a failed one becomes incomplete-NAME."""
        if code and self.result.is_file():  # that of an earlier state, or of what did not fail
            self.result.rename(self.result.with_name(f"incomplete-{self.result.name}"))
        if self.result.is_file():
            return ""
        return f"exit code {code}" if code else "no error, but its command did not write this file"


def first_without(jobs: Sequence[Job], logs: Set[Path]) -> Job | None:
    """Returns the first job whose log is none of these, which are being written."""
    return next((job for job in jobs if job.log not in logs), None)


def run_jobs(
    jobs: Sequence[Job], at_once: int, say: Callable[[str], None]
) -> Iterator[tuple[Job, str, float]]:
    """Yields (job, error or "", seconds) as the jobs end. They share the GPUs and cores.

    If the generator is interrupted (KeyboardInterrupt) or closed, it passes Ctrl-C on to the running
    commands, and waits until they have ended. say: reports what starts.
    """
    waiting, running, free = list(jobs), {}, environments(min(at_once, len(jobs)))
    try:
        while waiting or running:
            while free and (job := first_without(waiting, {job.log for job in running})):
                waiting.remove(job)
                environment = free.pop(0)
                if process := job.start(environment):
                    running[job] = process, environment, time.monotonic()
                    say(f"started: {job.result}")
                else:
                    free.append(environment)
                    yield job, f"another command is writing {job.log}", 0.0
            for job, (process, environment, began) in list(running.items()):
                if process.poll() is not None:
                    del running[job]
                    free.append(environment)
                    yield job, job.error(process.returncode), time.monotonic() - began
            time.sleep(PAUSE)
    finally:
        while running:
            with suppress(KeyboardInterrupt):  # a further one interrupts the commands again
                for process, _, _ in running.values():
                    if process.poll() is None:
                        os.killpg(process.pid, signal.SIGINT)
                for job, (process, _, _) in list(running.items()):
                    job.error(process.wait())
                    del running[job]
