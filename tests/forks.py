"""Commands in a forked process, which a test can kill or interrupt and which does not import torch again."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable

import psutil

FORK = multiprocessing.get_context("fork")


def forked(command: Callable[[], int]) -> int:
    """Returns the exit code of `command()` in a forked process; -N if signal N ended it."""
    process = FORK.Process(target=lambda: sys.exit(command()))
    process.start()
    process.join()
    return process.exitcode


def killed(command: Callable[[], int], when: str, path: str) -> list[psutil.Process]:
    """Kills `command()` before or after the rename of a file or folder to its final path.

    when: "before" or "after"; path: the end of that path; the first rename counts. Returns the processes that
    the command had started.
    """
    receiver, sender = FORK.Pipe(duplex=False)

    def dying(rename: Callable) -> Callable:
        def renamed(source, target):
            ends_here = str(target).endswith(path)
            if ends_here and when == "before":
                die()
            rename(source, target)
            if ends_here:
                die()

        return renamed

    def die():
        sender.send([child.pid for child in psutil.Process().children(recursive=True)])
        os.kill(os.getpid(), signal.SIGKILL)

    def until_killed() -> int:
        os.replace, os.rename = dying(os.replace), dying(os.rename)
        return command()

    assert forked(until_killed) == -signal.SIGKILL
    return [psutil.Process(pid) for pid in receiver.recv() if psutil.pid_exists(pid)]
