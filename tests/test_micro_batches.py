"""How a device cuts a step into micro-batches, what does not depend on the cut, and what the model gets."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_steps import parameters, settings_with

from routing_moe import RoutingBartConfig, RoutingBartForConditionalGeneration
from routing_moe.io import memory
from routing_moe.model.base import train_base
from routing_moe.model.routed_layer import RoutePlan
from routing_moe.optim import micro_batches, state_memory
from routing_moe.optim.micro_batches import Cut, model_inputs, on_device, tokens_that_fit
from routing_moe.optim.step import padding_report
from routing_moe.training.cost import training_cost

CPU, CUDA = (
    SimpleNamespace(device=torch.device(name), num_processes=1) for name in ("cpu", "cuda")
)  # accelerators
GB = 10**9


def bart_base(**fields) -> RoutingBartForConditionalGeneration:
    """Returns a model of the size of bart-base, without memory for its weights."""
    with torch.device("meta"):
        return RoutingBartForConditionalGeneration(RoutingBartConfig(**BASE | fields))


BASE = dict(vocab_size=50265, d_model=768, encoder_layers=6, decoder_layers=6)
BASE |= dict(encoder_ffn_dim=3072, decoder_ffn_dim=3072, num_experts=3, task_names=["a"])


# ---- defaults


def test_a_cpu_has_the_defaults_of_the_published_runs():
    cut = Cut.on(CPU, bart_base(), settings_with())
    assert (cut.max_tokens, cut.overhead, cut.multiple) == (16384, 256, 1)
    assert str(cut) == "micro-batches of at most 16384 padded tokens, each at a cost of 256 tokens"


def test_on_cuda_the_limit_is_chosen_from_free_memory_and_logged(monkeypatch):
    monkeypatch.setattr(state_memory, "free_gpu_memory", lambda device: 78 * GB)
    cut = Cut.on(CUDA, bart_base(), settings_with())
    assert (cut.max_tokens, cut.overhead, cut.multiple) == (32768, 8192, 8)
    assert "at most 32768 padded tokens for 78.0 GB of free GPU memory" in str(cut)
    assert str(cut).endswith("8192 tokens; widths are multiples of 8")


def test_several_processes_agree_on_the_limit_of_the_smallest_free_memory(monkeypatch):
    monkeypatch.setattr(state_memory, "free_gpu_memory", lambda device: 78 * GB)
    monkeypatch.setattr(state_memory, "gather_object", lambda own: [*own, 20 * GB])
    both = SimpleNamespace(device=CUDA.device, num_processes=2)
    assert Cut.on(both, bart_base(), settings_with()).max_tokens == 16384


@pytest.mark.parametrize("accelerator", [CPU, CUDA])
def test_flags_decide_on_every_device(accelerator):
    model = bart_base()
    cut = Cut.on(accelerator, model, settings_with(max_tokens_per_micro_batch=500, micro_batch_overhead=7))
    assert (cut.max_tokens, cut.overhead) == (500, 7)
    unlimited = Cut.on(
        accelerator, model, settings_with(max_tokens_per_micro_batch=0, micro_batch_overhead=0)
    )
    assert (unlimited.max_tokens, unlimited.overhead) == (None, 0)
    assert "micro-batches of any size" in str(unlimited)


def test_the_limit_falls_with_free_memory_and_with_the_experts_that_a_route_uses():
    found = {
        mode: [tokens_that_fit(gb * GB, bart_base(router_mode=mode)) for gb in (78, 20, 8, 1)]
        for mode in ("gumbel_softmax_st", "softmax")
    }
    # Gradients and AdamW's state take 4.1 GB; a token takes 6 layers x 768 x (32 x 1 or 3, + 3) x 4 bytes.
    assert found["gumbel_softmax_st"] == [32768, 16384, 2048, 1024]
    assert found["softmax"] == [16384, 4096, 1024, 1024]


@pytest.mark.parametrize(("num_experts", "limits"), [(1, [16384, 8192, 4096]), (16, [16384, 8192, 4096])])
def test_low_rank_experts_keep_little_for_each_token(num_experts, limits):
    model = bart_base(num_experts=num_experts, router_mode="softmax", expert_kind="lora")
    train_base(model, False)
    assert [tokens_that_fit(gb * GB, model) for gb in (20, 10, 5)] == limits


def test_free_memory_includes_what_torch_keeps_for_reuse(monkeypatch):
    fake = dict(mem_get_info=(5, 9), memory_reserved=4, memory_allocated=3)
    for name, value in fake.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert memory.free_gpu_memory(CUDA.device) == 6


def test_out_of_memory_on_cuda_says_that_the_limit_was_chosen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    flags = memory.memory_flags(SimpleNamespace(max_tokens_per_micro_batch=None))
    assert flags == "give a smaller --max_tokens_per_micro_batch (now chosen from free memory)"


# ---- what follows from the cut


def test_widths_are_multiples_but_not_beyond_the_positions_of_the_model():
    cut = Cut(None, multiple=8, longest=30)
    assert cut.width(np.array([1, 8, 9, 24, 25, 30])).tolist() == [8, 8, 16, 24, 30, 30]
    assert Cut(None).width(np.array([1, 9])).tolist() == [1, 9]


def test_a_higher_overhead_gives_fewer_micro_batches(make_stepper):
    counts = [
        len(make_stepper({"micro_batch_overhead": tokens, "train_batch_size": 12}).split(0)[2])
        for tokens in (0, 10, 1000)
    ]
    assert counts == sorted(set(counts), reverse=True)
    assert counts[-1] == 1


@pytest.mark.parametrize("mode", ["softmax", "gumbel_softmax_st"])
def test_padding_to_multiples_changes_only_the_padding(make_stepper, mode):
    bare, padded = (make_stepper({"train_batch_size": 8}, router_mode=mode) for _ in range(2))
    padded.cut = dataclasses.replace(padded.cut, multiple=8)
    shapes, forward = [], padded.model.forward
    padded.model.forward = lambda **inputs: shapes.append(inputs["input_ids"].shape[1]) or forward(**inputs)
    for step in range(2):
        assert padded.step(step) == pytest.approx(bare.step(step), rel=1e-9)
    for name, p in parameters(padded).items():
        torch.testing.assert_close(p, parameters(bare)[name], rtol=0, atol=1e-9)
    assert {width % 8 for width in shapes} == {0}


def test_padding_to_multiples_counts_in_reports(make_stepper):
    stepper = make_stepper({"micro_batch_overhead": 1000})
    bare, before = training_cost(stepper, 1), padding_report(stepper)
    stepper.cut = dataclasses.replace(stepper.cut, multiple=8)
    padded = training_cost(stepper, 1)
    assert padded["flops_per_example"] > bare["flops_per_example"]
    assert padded["flops_per_example_unpadded"] == bare["flops_per_example_unpadded"]
    assert padding_report(stepper) != before


# ---- what the model gets


@pytest.mark.parametrize("equal_lengths", [False, True])
def test_ready_masks_and_positions_give_bit_for_bit_what_the_model_makes_itself(
    make_model, examples, equal_lengths
):
    model = make_model(dtype=torch.float32, bart_fields={"dropout": 0.3, "attention_dropout": 0.3}).train()
    indices = np.array([3, 3, 3]) if equal_lengths else np.arange(6)
    choices, found = np.zeros(len(indices), dtype=np.int64), []
    plain = examples.collate(indices, choices, pad_token_id=1)
    task_ids = plain.pop("task_ids") * 0
    ready = model_inputs(examples, indices, choices, model.config, Cut(None))
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
    inputs = model_inputs(examples, np.arange(4), np.zeros(4, dtype=int), model.config, Cut(None))
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
    assert on_device(batches, CPU.device) is batches


def test_a_plan_from_routes_on_the_cpu_is_that_of_the_routes():
    routes_BLE = torch.nn.functional.one_hot(torch.randint(3, (6, 4)), 3).double()
    kept = RoutePlan.sparse(torch.full((6, 4, 3), torch.nan), on_cpu_BLE=routes_BLE)
    expected = RoutePlan.sparse(routes_BLE)
    assert torch.equal(kept.order_LEB, expected.order_LEB)
    assert kept.n_active == expected.n_active
    merging = RoutePlan.merging(torch.full((6, 4, 3), torch.nan), on_cpu_BLE=routes_BLE[[0, 1, 0, 2, 1, 0]])
    groups = merging.merged.order_B.split(merging.merged.sizes)
    assert sorted(group.tolist() for group in groups) == [[0, 2, 5], [1, 4], [3]]


def test_a_step_after_an_evaluation_has_dropout(make_stepper):
    fields = dict(bart_fields={"dropout": 0.5})
    one, other = make_stepper(**fields), make_stepper(**fields)
    one.model.eval()
    other.model.train()
    assert one.step(0) == other.step(0)
