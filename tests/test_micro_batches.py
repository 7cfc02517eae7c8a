"""How a device divides a step into micro-batches, what does not depend on that, and what the model gets."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_steps import parameters

from routing_moe.model.routed_layer import RoutePlan
from routing_moe.optim import micro_batches
from routing_moe.optim.micro_batches import MicroBatchLimits, model_inputs, on_device

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_a_step_that_runs_out_of_memory_is_that_of_smaller_micro_batches(make_stepper, monkeypatch):
    flags = dict(micro_batch_overhead=1000, train_batch_size=12)
    tight, roomy = (make_stepper(flags) for _ in range(2))
    forward, sizes = tight.model.forward, []

    def limited(**inputs):
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(**inputs)

    monkeypatch.setattr(tight.model, "forward", limited)
    for step in range(2):
        assert tight.step(step) == pytest.approx(roomy.step(step), rel=1e-9)
    torch.testing.assert_close(parameters(tight), parameters(roomy), rtol=0, atol=1e-9)
    again = make_stepper(flags | {"max_tokens_per_micro_batch": tight.limits.max_tokens})
    for step in range(2):
        again.step(step)
    assert all(torch.equal(p, parameters(again)[name]) for name, p in parameters(tight).items())
    assert sizes[0] == 12


def test_padding_to_multiples_changes_only_the_padding(make_stepper):
    bare, padded = (make_stepper({"train_batch_size": 8}) for _ in range(2))
    padded.limits = dataclasses.replace(padded.limits, multiple=8)
    shapes, forward = [], padded.model.forward
    padded.model.forward = lambda **inputs: shapes.append(inputs["input_ids"].shape[1]) or forward(**inputs)
    for step in range(2):
        assert padded.step(step) == pytest.approx(bare.step(step), rel=1e-9)
    torch.testing.assert_close(parameters(padded), parameters(bare), rtol=0, atol=1e-9)
    assert {width % 8 for width in shapes} == {0}


@pytest.mark.parametrize("equal_lengths", [False, True])
def test_ready_masks_and_positions_are_those_that_the_model_makes(make_model, examples, equal_lengths):
    model = make_model(dtype=torch.float32, bart_fields={"dropout": 0.3, "attention_dropout": 0.3}).train()
    indices = np.array([3, 3, 3]) if equal_lengths else np.arange(6)
    choices, found = np.zeros(len(indices), dtype=np.int64), []
    plain = examples.collate(indices, choices, pad_token_id=1)
    task_ids = plain.pop("task_ids") * 0
    ready = model_inputs(examples, indices, choices, model.config, MicroBatchLimits(None))
    assert ("attention_mask" in ready) != equal_lengths
    for inputs in (plain, ready):
        model.zero_grad()
        torch.manual_seed(5)
        loss = model(**inputs, task_ids=task_ids).loss
        loss.backward()
        found.append([loss.detach()] + [p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_other_attention_gets_masks_that_it_understands(make_model, examples):
    model = make_model()
    model.set_attn_implementation("eager")
    rows, choices = np.arange(4), np.zeros(4, dtype=int)
    inputs = model_inputs(examples, rows, choices, model.config, MicroBatchLimits(None))
    assert inputs["attention_mask"].dim() == 2
    assert "decoder_attention_mask" not in inputs


def test_one_copy_brings_all_tensors_of_all_micro_batches(monkeypatch):
    copies = []
    monkeypatch.setattr(micro_batches, "sent", lambda tensor, to: copies.append(tensor) or tensor.clone())
    batches = [
        {"ids": torch.arange(12).view(3, 4), "mask": torch.tensor([[True], [False], [True]])},
        {"ids": torch.arange(6).view(2, 3).T, "mask": torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()},
        {"weights": torch.rand(3), "none": torch.empty(0, dtype=torch.long)},
    ]
    moved = on_device(batches, torch.device("meta"))
    assert len(copies) == 1
    for batch, other in zip(batches, moved, strict=True):
        assert list(batch) == list(other)
        for name, tensor in batch.items():
            assert (other[name].dtype, other[name].tolist()) == (tensor.dtype, tensor.tolist())
    assert on_device(batches, CPU) is batches


def test_a_plan_from_routes_on_the_cpu_is_that_of_the_routes():
    routes_BLE = torch.nn.functional.one_hot(torch.randint(3, (6, 4)), 3).double()
    kept = RoutePlan.sparse(torch.full((6, 4, 3), torch.nan), on_cpu_BLE=routes_BLE)
    expected = RoutePlan.sparse(routes_BLE)
    assert torch.equal(kept.order_LEB, expected.order_LEB)
    assert kept.n_active == expected.n_active
    merging = RoutePlan.merging(torch.full((6, 4, 3), torch.nan), on_cpu_BLE=routes_BLE[[0, 1, 0, 2, 1, 0]])
    groups = merging.merged.order_B.split(merging.merged.sizes)
    assert sorted(group.tolist() for group in groups) == [[0, 2, 5], [1, 4], [3]]
