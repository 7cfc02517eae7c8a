"""An emulated accelerator: finds tensors on the wrong device and counts launches, on a machine without a GPU.

    found = on_device(function, *arguments)  # function(*arguments) in a process whose accelerator is emulated

    def counted_step(stepper):
        with counting() as counts:
            stepper.step(1)
        return counts  # .launches and .syncs are Counters; .launches.total() is a number

A tensor on the device "emulated:0" is a wrapper around a tensor on the CPU. Each operation checks where its
tensors are, fails where CUDA fails if devices are mixed, and computes on the CPU. So results are numbers that
can be compared with those of the CPU, and the code takes the branches that it takes on a GPU.

Limits: no autocast, one device, nothing in processes that the function starts. Needs: a fork (POSIX; no GPU,
whose threads do not survive it) and underscored names of torch. Tests marked NEEDS_DEVICE skip without them.
"""

import os
import pickle
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from forks import FORK
from torch._decomp import decompositions
from torch.utils import _foreach_utils, backend_registration
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

NAME = "emulated"
DEVICE = f"{NAME}:0"
ROOT = Path(__file__).resolve().parents[1]
aten = torch.ops.aten

COPIES = {aten.copy_.default, aten._to_copy.default, aten._copy_from.default}
INDEXING = {
    aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._index_put_impl_.default,
}  # fmt: skip
# The host waits for these: their result, or its size, depends on values.
WAITING = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
    aten._unique2.default, aten.unique_dim.default, aten.unique_consecutive.default, aten.bincount.default,
    aten.repeat_interleave.Tensor,
}  # fmt: skip
# These start no kernel, as views do not.
WITHOUT_KERNEL = {
    aten.empty.memory_format, aten.empty_like.default, aten.empty_strided.default, aten.new_empty.default,
    aten.new_empty_strided.default, aten.detach.default, aten._local_scalar_dense.default,
    aten._unsafe_view.default,  # a view that torch 2.15 dispatches
}  # fmt: skip
UNDERSCORED = (
    (backend_registration, "_setup_privateuseone_for_python_backend"),
    (backend_registration, "_DummyBackendModule"),
    (_foreach_utils, "_foreach_supported_types"),
    (decompositions, "lstm_impl"),
    (decompositions, "gru_impl"),
)
# Torch calls these without a tensor on the device, or where Python's dispatch is off, as in torch.tensor.
CALLED_FROM_C = (
    aten.empty.memory_format, aten.empty_strided.default, aten.arange.default, aten.arange.start,
    aten.arange.start_step, aten.fill_.Scalar, aten.zero_.default, aten.view.default, aten.as_strided.default,
    aten._copy_from.default, aten._local_scalar_dense.default,
)  # fmt: skip


class WrongDevice(RuntimeError):
    """An operation got tensors on different devices."""


# ---- processes with the device


def missing_requirement() -> str | None:
    """Returns why the device cannot be emulated here, or None."""
    missing = [name for module, name in UNDERSCORED if not hasattr(module, name)]
    if missing:
        return f"torch {torch.__version__} has no {', '.join(missing)}"
    if not hasattr(os, "fork"):
        return "needs a fork"
    return "a process that uses a GPU cannot be forked" if torch.cuda.is_available() else None


NEEDS_DEVICE = pytest.mark.skipif(missing_requirement() is not None, reason=str(missing_requirement()))


def on_device(function: Callable, *arguments):
    """Returns function(*arguments), run in a forked process in which commands use the emulated device.

    The result must be picklable; tensors come back on the CPU. An exception is raised here, its traceback in
    a note. The device is registered in the forked process only, so that other tests do not see it.
    """
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_run_and_send, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        found, error = pickle.loads(receiver.recv_bytes())
    except EOFError:
        raise RuntimeError("the process with the device ended without a result; see its output") from None
    finally:
        process.join()
    if error is not None:
        raise error
    return found


def _run_and_send(sender, function: Callable, arguments: tuple) -> None:
    found = error = None
    try:
        register()
        found = function(*arguments)
    except Exception as raised:
        raised.add_note(traceback.format_exc())
        error = raised
    # Not sender.send(), which would share the memory of tensors with a process that is about to end.
    sender.send_bytes(pickle.dumps((found, error)))


def register() -> None:
    """Registers the device and makes it the accelerator of this process. This cannot be undone."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=DeviceModule())
    _kept.append(torch.library.Library("aten", "IMPL"))
    for operation in CALLED_FROM_C:
        name = operation.name().removeprefix("aten::")
        _kept[0].impl(name, partial(_called_from_c, operation), "PrivateUse1")
    torch.nn.functional.scaled_dot_product_attention = fused_attention
    torch._VF.lstm, torch._VF.gru = decompositions.lstm_impl, decompositions.gru_impl  # not the fused ones
    torch.Tensor.pin_memory, torch.Tensor.is_pinned = pinned, is_pinned
    _foreach_utils._foreach_supported_types.append(EmulatedTensor)  # gradients are clipped together
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


def _called_from_c(operation, *args, **kwargs):
    return run(operation, args, kwargs)


# ---- tensors


class EmulatedTensor(torch.Tensor):
    """A tensor on the device: the metadata of a tensor on the CPU, which has the numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    def __tensor_flatten__(self):
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner, meta, size, stride):
        return EmulatedTensor(inner["inner"])

    def __repr__(self):
        return f"EmulatedTensor({self.inner!r})"

    def tolist(self):
        note_sync("tolist")
        return self.inner.tolist()

    def numpy(self, *_, **__):
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *_, **__):
        self.numpy()

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


def run(func, args: tuple, kwargs: dict):
    """Returns the result of an operation of which some tensor, or the result, is on the device."""
    flat, structure = tree_flatten((args, kwargs))
    here = [t for t in flat if isinstance(t, EmulatedTensor)]
    there = [t for t in flat if isinstance(t, torch.Tensor) and not isinstance(t, EmulatedTensor)]
    target = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else None
    if here and there and func not in COPIES:
        check_devices(func, args, there)
    note(func, args, kwargs, target)
    inner_args, inner_kwargs = tree_unflatten([_inner(value) for value in flat], structure)
    if func is aten._copy_from.default:
        inner_args[1].copy_(inner_args[0])
        return args[1]
    found = func(*inner_args, **inner_kwargs)
    stays_on_cpu = func is aten.copy_.default and not isinstance(args[0], EmulatedTensor)
    if stays_on_cpu or target == "cpu" or not (here or target):
        return found
    found = tree_map_only(torch.Tensor, EmulatedTensor, found)
    found = return_and_correct_aliasing(func, args, kwargs, found) if here else found
    if any(tensor.shape != tensor.inner.shape for tensor in here):
        raise NotImplementedError(f"{func.name()} changes the size of its argument")
    return found


def _inner(value):
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.inner if isinstance(value, EmulatedTensor) else value


def check_devices(func, args: tuple, on_cpu: list[torch.Tensor]) -> None:
    """Raises WrongDevice unless CUDA, too, accepts these tensors on the CPU beside those on the device."""
    if func in INDEXING:
        value_fits = len(args) < 3 or isinstance(args[2], EmulatedTensor) or args[2].dim() == 0
        if isinstance(args[0], EmulatedTensor) and value_fits:
            return  # indices may be on the CPU
    elif torch.Tag.pointwise in func.tags and all(t.dim() == 0 for t in on_cpu):
        return  # a number
    raise WrongDevice(
        f"Expected all tensors to be on the same device, but found at least two devices, {DEVICE} and cpu! "
        f"({func.name()}, called at {caller()})"
    )


# ---- pinned memory, attention

_real_attention = torch.nn.functional.scaled_dot_product_attention
_pinned: dict[int, torch.UntypedStorage] = {}  # kept, so that no other tensor gets the address


def pinned(tensor: torch.Tensor, device=None) -> torch.Tensor:
    """Replaces Tensor.pin_memory: copies from the result to the device can be asynchronous."""
    copied = tensor.clone()
    _pinned[copied.untyped_storage().data_ptr()] = copied.untyped_storage()
    return copied


def is_pinned(tensor: torch.Tensor, device=None) -> bool:
    return tensor.untyped_storage().data_ptr() in _pinned


class FusedAttention(torch.autograd.Function):
    """Attention as one operation, as on CUDA; torch would compute it from many on an unknown device."""

    @staticmethod
    def forward(ctx, named, mask, *queries_keys_values):
        own = [tensor.inner.detach().requires_grad_() for tensor in queries_keys_values]
        with torch.enable_grad():
            output = _real_attention(*own, attn_mask=_inner(mask), **named)
        ctx.graph = output, own
        note_launches("attention", 1)
        return EmulatedTensor(output.detach())

    @staticmethod
    def backward(ctx, gradient):
        output, own = ctx.graph
        note_launches("attention backward", 3)  # as flash attention
        found = torch.autograd.grad(output, own, gradient.inner)
        return None, None, *map(EmulatedTensor, found)


def fused_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, **named):
    """Replaces F.scaled_dot_product_attention."""
    tensors = [t for t in (query, key, value, attn_mask) if t is not None]
    named |= dict(dropout_p=dropout_p, is_causal=is_causal)
    n_here = sum(isinstance(t, EmulatedTensor) for t in tensors)
    if n_here == 0:
        return _real_attention(query, key, value, attn_mask=attn_mask, **named)
    if n_here < len(tensors):
        raise WrongDevice(f"attention to tensors on {DEVICE} and cpu, called at {caller()}")
    return FusedAttention.apply(named, attn_mask, query, key, value)


# ---- counting


@dataclass
class Counts:
    """Kernel launches by operation; synchronisations of host and device by operation and line of the project.

    Views launch nothing, attention one kernel and three in its backward pass, every other operation one.
    A copy of pinned memory to the device does not synchronise if it is non_blocking; all other copies do.
    """

    launches: Counter = field(default_factory=Counter)
    syncs: Counter = field(default_factory=Counter)


_counting: list[Counts] = []


@contextmanager
def counting():
    """Counts launches and synchronisations in the block."""
    _counting.append(Counts())
    try:
        yield _counting[-1]
    finally:
        _counting.pop()


def note_launches(operation: str, n: int) -> None:
    for counts in _counting:
        counts.launches[operation] += n


def note_sync(what: str) -> None:
    for counts in _counting:
        counts.syncs[f"{what}, {caller()}"] += 1


def caller() -> str:
    """Returns file and line of the innermost frame of the project; the engine's threads have none."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path != Path(__file__) and path.is_relative_to(ROOT) and "site-packages" not in path.parts:
            return f"{path.relative_to(ROOT)}:{frame.lineno}"
    return "a backward pass"


def note(func, args: tuple, kwargs: dict, target: str | None) -> None:
    """Counts the launch and the synchronisation of an operation."""
    if not _counting:
        return
    name = func.name().removeprefix("aten::")
    if func in COPIES:
        note_copy(func, args, kwargs, target)
    elif func in WAITING:
        note_sync(name)
    elif func in INDEXING:
        for indices in args[1]:
            if indices is not None and indices.dtype in (torch.bool, torch.uint8):
                note_sync("boolean index")
            elif indices is not None and not isinstance(indices, EmulatedTensor):
                note_sync("index on the CPU")
    is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
    if not is_view and func not in WITHOUT_KERNEL:
        note_launches(name, 1)


def note_copy(func, args: tuple, kwargs: dict, target: str | None) -> None:
    """Counts the synchronisation of a copy between the CPU and the device."""
    non_blocking = kwargs.get("non_blocking", False)
    if func is aten._to_copy.default:
        source, from_device = args[0], isinstance(args[0], EmulatedTensor)
        to_device = from_device if target is None else target == NAME
    else:
        to, source = args[:2] if func is aten.copy_.default else args[1::-1]
        from_device, to_device = (isinstance(t, EmulatedTensor) for t in (source, to))
        non_blocking = non_blocking or args[2:3] == (True,)
    if from_device and not to_device:
        note_sync("copy to the CPU")
    if to_device and not from_device and not (non_blocking and is_pinned(source)):
        note_sync("copy to the device")
