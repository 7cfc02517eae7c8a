"""Devices: errors about a precision that the device does not support, the initial loss scale of fp16."""

import os
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from mistakes import assert_problem

from dataloader.errors import InputError
from routing_moe.io.accelerator import (
    ALLOCATOR_VARIABLES,
    check_gpu,
    command_device,
    make_accelerator,
    prepare_gpu,
)
from routing_moe.io.precision import chosen_precision


@pytest.fixture(autouse=True)
def _own_state(monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)  # which tiny_runs.py sets
    check_gpu.cache_clear()
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    check_gpu.cache_clear()
    AcceleratorState._reset_state(reset_partial_state=True)


def test_bf16_on_a_device_without_it_is_reported(monkeypatch):
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "meta")  # any but a CPU, which has it
    monkeypatch.setattr("accelerate.accelerator.is_bf16_available", lambda *_: False)
    problem = "--mixed_precision is bf16, which this device does not support; give fp16 or no"
    with pytest.raises(InputError) as error:
        make_accelerator("bf16")
    assert error.value.problems == [problem]


def test_fp16_on_a_cpu_is_reported_also_from_accelerate_launch(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(InputError, match=r"is fp16 \(accelerate launch\), which needs a GPU"):
        make_accelerator()
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(InputError, match="--mixed_precision is fp16, which needs a GPU; on a CPU give bf16"):
        make_accelerator("fp16")


def test_several_processes_without_a_group_are_reported(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # as torchrun does; without a GPU, accelerate then ignores it
    for make in (make_accelerator, command_device):
        with pytest.raises(InputError, match=r"WORLD_SIZE is 2, but torch .* set ACCELERATE_USE_CPU=true"):
            make()


def test_the_initial_loss_scale_does_not_overflow_with_summed_losses():
    fields = make_accelerator().scaler_handler.to_kwargs()
    assert torch.amp.GradScaler("cpu", **fields).get_scale() == 2**8


@pytest.mark.parametrize(
    ("gpu", "bf16", "on_cpu", "expected"),
    [(False, True, "", "no"), (True, False, "", "no"), (True, True, "", "bf16"), (True, True, "true", "no")],
)
def test_auto_is_bf16_on_a_gpu_that_computes_in_it(gpu, bf16, on_cpu, expected, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")  # the flag decides
    monkeypatch.setenv("ACCELERATE_USE_CPU", on_cpu or "false")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    supported = lambda including_emulation=True: bf16 or including_emulation  # noqa: E731
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert chosen_precision("auto") == expected
    assert chosen_precision("bf16") == "bf16"
    assert chosen_precision(None) == "fp16"
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    assert chosen_precision(None) == expected


@pytest.mark.parametrize(
    ("device", "precision", "expected"), [("cuda", "no", ["high"]), ("cuda", "bf16", []), ("cpu", "no", [])]
)
def test_float32_on_cuda_is_multiplied_in_tf32(device, precision, expected, monkeypatch):
    fake = SimpleNamespace(device=torch.device(device), mixed_precision=precision, num_processes=1)
    chosen = []
    monkeypatch.setattr("routing_moe.io.accelerator.Accelerator", lambda **_: fake)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", chosen.append)
    assert make_accelerator(precision) is fake
    assert chosen == expected


# ---- the GPU


@pytest.fixture
def a_driver(tmp_path, monkeypatch):
    """An nvidia-smi that lists a GPU, which this torch does not see."""
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: a card (UUID: GPU-1)'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.2")


def test_a_gpu_that_torch_cannot_use_ends_the_command_with_the_remedy(a_driver):
    with pytest.raises(InputError) as error:
        make_accelerator()
    assert_problem(
        error.value.problems,
        f"this machine has GPU 0: a card (UUID: GPU-1), but torch {torch.__version__}, built for CUDA 13.2, "
        "cannot use it: update the driver",
        "with ACCELERATE_USE_CPU=true in the environment, the command runs on the CPU",
    )


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_CPU=true", "CUDA_VISIBLE_DEVICES=", "PATH="])
def test_a_gpu_that_is_hidden_or_not_wanted_is_not_an_error(variable, a_driver, monkeypatch):
    monkeypatch.setenv(*variable.split("="))
    assert make_accelerator().device.type == "cpu"


@pytest.mark.parametrize("on_cpu", [True, False])
def test_a_command_without_an_accelerator_also_obeys_accelerate_use_cpu(on_cpu, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", str(on_cpu))
    asked = SimpleNamespace(device=torch.device("meta"), num_processes=1)
    state = "routing_moe.io.accelerator.PartialState"
    monkeypatch.setattr(state, lambda cpu: asked if cpu == on_cpu else None)
    assert command_device().type == "meta"


def test_attention_of_cudnn_is_switched_off():
    torch.backends.cuda.enable_cudnn_sdp(True)
    make_accelerator()
    assert not torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.parametrize(
    ("gpu", "own", "expected"),
    [
        (True, {}, "expandable_segments:True"),
        (True, {"PYTORCH_ALLOC_CONF": "backend:native"}, None),
        (False, {}, None),
    ],
)
def test_memory_segments_of_a_gpu_can_grow_unless_the_user_has_set_them(gpu, own, expected, monkeypatch):
    for name in ALLOCATOR_VARIABLES:
        monkeypatch.setenv(name, own.get(name, ""))  # also restores it after the test
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    prepare_gpu()
    assert os.environ["PYTORCH_CUDA_ALLOC_CONF"] == (expected or "")
