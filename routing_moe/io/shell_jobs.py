"""Shell commands that each write a result file, with a log beside the run folder."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dataloader.atomic_files import lock_file

LAST_LINES, LAST_BYTES = 5, 4000  # shown of a log
HEADING = "---- {}\n"  # before the output of each command in a log, which results of a run folder share


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

    def may_run_beside(self, running: Iterable["Job"]) -> bool:
        return self.log not in {job.log for job in running}


class ShellCommand:
    """A slot of jobs: a command that runs with these variables in addition to those of this process."""

    def __init__(self, variables: Mapping[str, str], say: Callable = lambda line: None):
        self.variables, self.say = variables, say
        self.job = self.process = None

    def start(self, job: Job) -> None:
        """Starts the command, unless the log is that of a running one, also of a killed caller."""
        self.job, self.process, self.began = job, None, time.monotonic()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            try:
                lock_file(log)  # until the command has closed it, too
            except BlockingIOError:
                return
            log.write(os.fsencode(HEADING.format(job.result)))
            log.flush()
            before = signal.getsignal(signal.SIGINT)
            if before == signal.SIG_IGN:  # of a background job, whose commands would never hear of Ctrl-C
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            self.process = subprocess.Popen(
                ["bash", "-c", job.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | self.variables,
                start_new_session=True,
            )
            signal.signal(signal.SIGINT, before)
        self.say(f"started: {job.result}")

    def is_done(self) -> bool:
        return not self.process or self.process.poll() is not None

    def outcome(self) -> tuple[str, float]:
        """Returns why the command failed, or "", and its seconds. The result of a failed one is renamed."""
        result, seconds = self.job.result, time.monotonic() - self.began
        if not self.process:
            return f"another command is writing {self.job.log}", seconds
        code = self.process.returncode
        if code and result.is_file():  # that of an earlier state, or of what did not fail
            result.rename(result.with_name(f"incomplete-{result.name}"))
        if result.is_file():
            return "", seconds
        return f"exit code {code}" if code else "no error, but its command did not write this file", seconds

    def interrupt(self) -> None:
        """Passes Ctrl-C on to all processes of the command."""
        if not self.is_done():
            os.killpg(self.process.pid, signal.SIGINT)
