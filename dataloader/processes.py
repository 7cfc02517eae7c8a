"""Ends worker processes together with the process that started them."""

from __future__ import annotations

import os
import signal
import threading
import time

WATCH_SECONDS = 1.0


def leave_signals_to(parent: int) -> None:
    """Prepares a worker process: Ctrl-C is left to its parent, and it ends when the parent has ended.

    parent: process id. A parent killed by SIGKILL cannot end its workers, which would work for lost results.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)
