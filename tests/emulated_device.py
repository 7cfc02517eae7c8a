"""An emulated accelerator: finds tensors on the wrong device on a machine without a GPU.

    found = on_device(function)  # function() in a process whose accelerator is emulated

A tensor on the device "emulated:0" is a wrapper around a tensor on the CPU. Each operation checks where its
tensors are, fails where CUDA fails if devices are mixed, and computes on the CPU. Limits: no autocast, one
device, nothing in processes that the function starts. Needs a fork, which no GPU survives; else tests marked
NEEDS_DEVICE skip.
"""

import os
import pickle
from collections.abc import Callable
from functools import partial

import pytest
import torch
from accelerate.state import AcceleratorState
from forks import FORK
from torch.utils import backend_registration
from torch.utils._python_dispatch import return_and_correct_aliasing

from dataloader.executor import outcome_of

NAME = "emulated"
DEVICE = f"{NAME}:0"
aten = torch.ops.aten

COPIES = {aten.copy_.default, aten._to_copy.default, aten._copy_from.default}
INDEXING = {
    aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._index_put_impl_.default,
}  # fmt: skip
# Torch calls these without a tensor on the device, or where Python's dispatch is off, as in torch.tensor.
CALLED_FROM_C = (
    aten.empty.memory_format, aten.empty_strided.default, aten.arange.default, aten.arange.start,
    aten.arange.start_step, aten.fill_.Scalar, aten.zero_.default, aten.view.default, aten.as_strided.default,
    aten._copy_from.default, aten._local_scalar_dense.default, aten.triu_indices.default,
)  # fmt: skip


class WrongDevice(RuntimeError):
    """An operation got tensors on different devices."""


SETUP = "_setup_privateuseone_for_python_backend"
MISSING = torch.cuda.is_available() or not hasattr(os, "fork") or not hasattr(backend_registration, SETUP)
NEEDS_DEVICE = pytest.mark.skipif(MISSING, reason="torch cannot emulate a device here")


def on_device(function: Callable):
    """Returns function(), run in a forked process, the only one in which commands use the emulated device.

    The result must be picklable. An exception is raised here, its traceback in a note.
    """
    receiver, sender = FORK.Pipe(duplex=False)

    def compute() -> None:
        register()
        # Not sender.send(), which would share the memory of tensors with a process that is about to end.
        sender.send_bytes(pickle.dumps(outcome_of(function, ())))

    process = FORK.Process(target=compute)
    process.start()
    sender.close()
    try:
        outcome = pickle.loads(receiver.recv_bytes())
    finally:
        process.join()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def register() -> None:
    """Registers the device and makes it the accelerator of this process. This cannot be undone."""
    getattr(backend_registration, SETUP)(NAME, backend_module=DeviceModule())
    _kept.append(torch.library.Library("aten", "IMPL"))
    for operation in CALLED_FROM_C:
        name = operation.name().removeprefix("aten::")
        _kept[0].impl(name, partial(run, operation), "PrivateUse1")
    torch.Tensor.pin_memory = torch.Tensor.clone
    # Backward passes run in the calling thread: a fork has no other, and errors then name the line.
    torch.autograd.set_multithreading_enabled(False)
    os.environ["ACCELERATE_TORCH_DEVICE"] = DEVICE
    os.environ.pop("ACCELERATE_USE_CPU", None)
    AcceleratorState._reset_state(reset_partial_state=True)


class DeviceModule(getattr(backend_registration, "_DummyBackendModule", object)):
    """torch.emulated: what torch and accelerate ask about a kind of device."""

    def set_device(self, device) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:  # asked where autocast is disabled
        return []


_kept: list = []  # the library, whose operations are unregistered when it is deleted
used: set = set()  # the operations that have run on the device


class EmulatedTensor(torch.Tensor):
    """A tensor on the device: the metadata of a tensor on the CPU, which has the numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor):
        where = dict(strides=inner.stride(), storage_offset=inner.storage_offset(), device=DEVICE)
        made = torch.Tensor._make_wrapper_subclass(cls, inner.size(), dtype=inner.dtype, **where)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, *args, **(kwargs or {}))

    def tolist(self):
        return self.inner.tolist()

    def numpy(self, *_, **__):
        raise TypeError("use Tensor.cpu() first")

    __array__ = numpy

    # Files and deep copies have the tensor on the CPU or its numbers.

    def untyped_storage(self):
        return self.inner.untyped_storage()

    def data_ptr(self):
        return self.inner.data_ptr()

    def __reduce_ex__(self, protocol):
        return self.inner.detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            copied = EmulatedTensor(self.inner.detach().clone())
            is_parameter = isinstance(self, torch.nn.Parameter)
            memo[id(self)] = torch.nn.Parameter(copied, self.requires_grad) if is_parameter else copied
        return memo[id(self)]


def run(func, *args, **kwargs):
    """Returns the result of an operation of which some tensor, or the result, is on the device."""
    here, there = [], []

    def inner(value):
        if isinstance(value, EmulatedTensor):
            here.append(value)
            return value.inner
        if isinstance(value, torch.Tensor):
            there.append(value)
        return torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else value

    inner_args = [changed(value, inner) for value in args]
    inner_kwargs = {name: changed(value, inner) for name, value in kwargs.items()}
    if here and there and func not in COPIES:
        check_devices(func, args, there)
    used.add(func)
    if func is aten._copy_from.default:
        inner_args[1].copy_(inner_args[0])
        return args[1]
    found = func(*inner_args, **inner_kwargs)
    target = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else None
    stays_on_cpu = func is aten.copy_.default and not isinstance(args[0], EmulatedTensor)
    if stays_on_cpu or target in ("cpu", "meta") or not (here or target):
        return found
    found = changed(found, lambda value: EmulatedTensor(value) if isinstance(value, torch.Tensor) else value)
    return return_and_correct_aliasing(func, args, kwargs, found) if here else found


def changed(value, change: Callable):
    """Returns change(value), or a list or tuple whose items are changed so; torch's own trees are slow."""
    if isinstance(value, list | tuple):
        return type(value)(changed(item, change) for item in value)
    return change(value)


def check_devices(func, args: tuple, on_cpu: list[torch.Tensor]) -> None:
    """Raises WrongDevice unless CUDA, too, accepts these tensors on the CPU beside those on the device."""
    if func in INDEXING:
        value_fits = len(args) < 3 or isinstance(args[2], EmulatedTensor) or args[2].dim() == 0
        if isinstance(args[0], EmulatedTensor) and value_fits:
            return  # indices may be on the CPU
    elif torch.Tag.pointwise in func.tags and all(t.dim() == 0 for t in on_cpu):
        return  # a number
    raise WrongDevice(f"{func.name()}: tensors on {DEVICE} and cpu")
