"""What the main process of several does for all of them."""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from dataloader.errors import InputError
from routing_moe.run_state import alone_in


def on_main(accelerator: Accelerator, act: Callable[[], object]):
    """What `act` gives in the main process, in all of them; its InputError too, so that none waits."""
    result, faults = None, None
    try:
        if accelerator.is_main_process:
            result = act()
    except InputError as error:
        faults = error.faults
    result, faults = broadcast_object_list([result, faults])
    if faults:
        raise InputError(faults)
    return result


@contextmanager
def run_alone_in(accelerator: Accelerator, folder: str | Path, check: Callable[[], list[str]] = list):
    """`alone_in` for a command of several processes: the main one holds the lock.

    check: gives the faults of the folder now that no other command is at work there. Raises InputError in all
    processes if the folder is taken, or has faults.
    """
    with ExitStack() as held:

        def enter() -> None:
            held.enter_context(alone_in(folder))
            if faults := check():
                raise InputError(faults)

        on_main(accelerator, enter)
        yield
