"""The emulated device accepts and rejects what CUDA does, counts, and is not seen by other tests."""

import pytest
import torch
from emulated_device import DEVICE, NEEDS_DEVICE, WrongDevice, counting, on_device

pytestmark = NEEDS_DEVICE


# ---- mixed devices


def ours(size: int = 3) -> torch.Tensor:
    return torch.arange(size, device=DEVICE)


ACCEPTED = {
    "a number in a tensor": lambda: ours() + torch.tensor(2),
    "an index on the CPU": lambda: ours()[torch.tensor([0, 2])],
    "a mask on the CPU": lambda: ours()[torch.tensor([True, False, True])],
    "a copy to the CPU": lambda: torch.zeros(3, dtype=torch.long).copy_(ours()),
    "a copy to the device": lambda: ours().copy_(torch.tensor([5, 6, 7])),
    "a number assigned": lambda: ours().index_put((ours(1),), torch.tensor(9)),
}
REJECTED = {
    "a sum": lambda: ours() + torch.ones(3),
    "a product": lambda: torch.ones(1, 3) @ ours().float(),
    "a row of an embedding": lambda: torch.nn.functional.embedding(
        torch.tensor([1]), torch.rand(3, 2).to(DEVICE)
    ),
    "index_select": lambda: ours().index_select(0, torch.tensor([1])),
    "an index on the device": lambda: torch.ones(3)[ours()],
    "an assignment to the CPU": lambda: torch.ones(3).long().index_put_((torch.tensor([1, 2]),), ours(2)),
    "a list": lambda: torch.stack([ours(), torch.ones(3).long()]),
    "a mask of attention": lambda: torch.nn.functional.scaled_dot_product_attention(
        *[torch.rand(1, 1, 2, 2).to(DEVICE)] * 3, attn_mask=torch.ones(2, 2) > 0
    ),
}


def test_operations_on_mixed_devices_that_cuda_accepts_have_the_results_of_the_cpu():
    found = on_device(lambda: {name: operation().cpu() for name, operation in ACCEPTED.items()})
    expected = {
        "a number in a tensor": [2, 3, 4],
        "an index on the CPU": [0, 2],
        "a mask on the CPU": [0, 2],
        "a copy to the CPU": [0, 1, 2],
        "a copy to the device": [5, 6, 7],
        "a number assigned": [9, 1, 2],
    }
    assert {name: tensor.tolist() for name, tensor in found.items()} == expected


def test_other_operations_on_mixed_devices_are_rejected_and_the_error_names_the_line():
    def accepted():
        return [name for name, operation in REJECTED.items() if not is_rejected(operation)]

    def is_rejected(operation) -> bool:
        with pytest.raises(WrongDevice, match=f"{DEVICE} and cpu.*{__name__}.py:"):
            operation()
        return True

    assert on_device(accepted) == []


def test_numpy_needs_a_copy_on_the_cpu():
    with pytest.raises(TypeError, match=r"Use Tensor.cpu\(\) first"):
        on_device(lambda: ours().numpy())


# ---- counts

# Launches and synchronisations.
COUNTS = {
    "a sum": (1, 0, lambda tensor: tensor + tensor),
    "a view": (0, 0, lambda tensor: tensor[1:].view(1, -1)),
    "a new tensor": (1, 0, torch.zeros_like),
    "a number": (0, 1, lambda tensor: float(tensor[0])),
    "a list": (0, 1, lambda tensor: tensor.tolist()),
    "a condition": (2, 1, lambda tensor: bool((tensor > 0).all())),
    "a boolean index": (2, 1, lambda tensor: tensor[tensor > 0]),
    "to the CPU": (1, 1, lambda tensor: tensor.cpu()),
    "to the device": (1, 1, lambda tensor: torch.ones(2).to(DEVICE, non_blocking=True)),
    "pinned memory": (1, 0, lambda tensor: torch.ones(2).pin_memory()[1:].to(DEVICE, non_blocking=True)),
    "pinned memory, blocking": (1, 1, lambda tensor: torch.ones(2).pin_memory().to(DEVICE)),
}


def test_launches_and_synchronisations_of_single_operations():
    def counted(operation) -> tuple[int, int]:
        tensor = ours()
        with counting() as counts:
            operation(tensor)
        return counts.launches.total(), counts.syncs.total()

    found = on_device(lambda: {name: counted(operation) for name, (_, _, operation) in COUNTS.items()})
    assert found == {name: (launches, syncs) for name, (launches, syncs, _) in COUNTS.items()}


def test_attention_is_one_kernel_with_the_gradients_of_the_cpu():
    inputs = torch.rand(3, 1, 2, 5, 4)

    def attention(device):
        leaves = [tensor.clone().to(device).requires_grad_() for tensor in inputs]
        output = torch.nn.functional.scaled_dot_product_attention(*leaves, is_causal=True)
        output.square().sum().backward()
        return [tensor.detach().cpu() for tensor in (output, *(leaf.grad for leaf in leaves))]

    def counted():
        with counting() as counts:
            found = attention(DEVICE)
        return found, counts.launches["attention"], counts.launches["attention backward"]

    found, *launches = on_device(counted)
    assert launches == [1, 3]
    torch.testing.assert_close(found, attention("cpu"))


# ---- other tests


def test_the_device_does_not_exist_outside():
    assert on_device(lambda: torch.zeros(1, device=DEVICE).device.type) == "emulated"
    with pytest.raises(RuntimeError):
        torch.zeros(1, device=DEVICE)
