"""Whether what training holds for every parameter fits into a GPU; it is checked before a model is loaded.

A trained parameter takes 16 bytes: weight, gradient and AdamW's two averages, all in float32 in every
precision. A frozen one takes 4. With several processes, each holds all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from accelerate import Accelerator
from accelerate.utils import gather_object

from dataloader.errors import InputError
from routing_moe.io.memory import free_gpu_memory, smaller_model
from routing_moe.model.configuration import RoutingBartConfig
from routing_moe.model.flops import parameters_of_parts

BYTES = 4  # of a number
STATE_NUMBERS = 3  # per trained parameter: its gradient and AdamW's two averages


@dataclass(frozen=True)
class State:
    """The numbers of all and of trained parameters of a model."""

    parameters: int
    trained: int

    @classmethod
    def of(cls, config: RoutingBartConfig, frozen: Collection[str]) -> State:
        """Returns the state of a model. frozen: keys of `parameters_of_parts`."""
        parts = parameters_of_parts(config)
        return cls(sum(parts.values()), sum(n for part, n in parts.items() if part not in frozen))

    @property
    def bytes(self) -> int:
        """The bytes of weights, gradients and AdamW's averages."""
        return BYTES * (self.parameters + STATE_NUMBERS * self.trained)


def free_memory(accelerator: Accelerator) -> int | None:
    """Returns the bytes that are free on a GPU, of several the fewest; None on another device.

    With several processes, all of them must call this.
    """
    if accelerator.device.type != "cuda":
        return None
    free = free_gpu_memory(accelerator.device)
    return free if accelerator.num_processes == 1 else min(gather_object([free]))


def check_fits(count: Callable[[], State], accelerator: Accelerator, settings) -> None:
    """Raises InputError if a state exceeds free GPU memory.

    count: returns the state, from a configuration that only a GPU needs. settings: have an attribute for each
    flag of the command.
    """
    free = free_memory(accelerator)
    if free is None:
        return
    state = count()
    if state.bytes <= free:
        return
    trained = "" if state.trained == state.parameters else f", {state.trained / 1e6:.1f}M of them trained"
    ways = smaller_model(settings)
    if getattr(settings, "num_workers", 1) > 1:  # each has a share of the memory
        ways.insert(0, f"fewer --num_workers (now {settings.num_workers})")
    raise InputError(
        f"the model has {state.parameters / 1e6:.1f}M parameters{trained}: weights, gradients and AdamW's "
        f"state take {state.bytes / 1e9:.1f} GB, but {free / 1e9:.1f} GB of GPU memory are free; "
        + (f"give {' or '.join(ways)}" if ways else "start from a smaller model")
    )
