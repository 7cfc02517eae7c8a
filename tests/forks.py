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
    """Runs `command()` until it is killed `when` ("before", "after") a file or folder takes its place.

    path: the end of its path; the first time counts. Returns the processes that it had started.
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
