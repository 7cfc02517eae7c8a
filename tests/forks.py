"""Commands in forked processes, which a test can kill or interrupt and which do not import torch again."""

import itertools
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from accelerate.state import AcceleratorState
from strict_collectives import enforce

FORK = multiprocessing.get_context("fork")


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was never met"
        time.sleep(0.01)


def forked(command: Callable[[], int]) -> int:
    """Returns the exit code of `command()` in a forked process; -N if signal N ended it."""
    process = FORK.Process(target=lambda: sys.exit(command()))
    process.start()
    process.join()
    return process.exitcode


def killed(command: Callable[[], int], when: str, path: str = "", number: int = 1) -> list[psutil.Process]:
    """Kills `command()` before or after the rename of a file or folder to its final path.

    when: "before" or "after"; path: the end of that path; number: which of these renames, from 1. Returns the
    processes that the command had started.
    """
    receiver, sender = FORK.Pipe(duplex=False)
    numbers = itertools.count(1)

    def dying(rename: Callable) -> Callable:
        def renamed(source, target):
            ends_here = str(target).endswith(path) and next(numbers) == number
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


def group_of_two(rank: int, port: int) -> dict[str, str]:
    """Returns the environment of one of two processes, as `accelerate launch` sets it."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "OMP_NUM_THREADS": 1}
    named = {name: str(number) for name, number in numbers.items()}
    return named | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def in_two_processes(folder: Path, function: Callable) -> tuple[list, list[str]]:
    """Returns what `function()` returns, or its traceback, and writes to stderr, in each of two processes.

    They form a group as soon as the function makes an Accelerator, and follow NCCL's rules.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [FORK.Process(target=_one_of_two, args=(rank, port, folder, function)) for rank in (0, 1)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
        process.kill()  # if it still waits for the other
    written = [(folder / f"stderr_{rank}").read_text() for rank in (0, 1)]
    assert [process.exitcode for process in started] == [0, 0], written
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)], written


def _one_of_two(rank: int, port: int, folder: Path, function: Callable) -> None:
    sys.stderr = (folder / f"stderr_{rank}").open("w", encoding="utf-8", buffering=1)
    os.environ |= group_of_two(rank, port)
    AcceleratorState._reset_state(reset_partial_state=True)
    enforce()
    try:
        result = function()
    except Exception:
        result = traceback.format_exc()
    torch.save(result, folder / f"{rank}.pt")
    sys.stderr.close()
    os._exit(0)  # without the cleanup of pytest
