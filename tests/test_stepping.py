"""One optimizer step: what it depends on, what it does not change, and the published code's steps."""

import dataclasses
import functools
import json
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.numpy import load_file
from tiny_steps import OneOfSeveral, encoded, parameters, recorded, settings_with
from torch.nn import functional as F

from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.model.published import upstream_name
from routing_moe.optim.step import (
    Stepper,
    TrainingDiverged,
    build_optimizer,
    frozen_parts,
    linear_warmup_decay,
    load_imbalance,
    part_of,
)


def moments(stepper, part: str) -> list[torch.Tensor]:
    state = stepper.optimizer.state
    named = [p for name, p in stepper.model.named_parameters() if part_of(name) == part and p in state]
    return [value.clone() for p in named for value in state[p].values()]


def assert_same(ours: dict, theirs: dict, tolerance: float = 0.0) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


# ---- schedules and groups


def test_learning_rate_factors_are_the_published_ones(published_numbers):
    factors = json.loads((published_numbers / "schedules.json").read_text())
    for step, expected in factors["linear_warmup_factor(total60000,warmup3600)"]:
        assert linear_warmup_decay(step, 3600, 60000) == pytest.approx(expected, rel=1e-12, abs=0)


def test_each_trained_parameter_is_in_one_group_and_norms_and_biases_do_not_decay(make_model):
    model = make_model(router_nn_type="transformer", encoder_vanilla_layers=[0])
    optimizer = build_optimizer(model, settings_with(weight_decay=0.1))
    names = {p: name for name, p in model.named_parameters()}
    grouped = [(names[p], group) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(name for name, _ in grouped) == sorted(names.values())
    rates = {"bart": 0.01, "router": 0.02, "vectors": 0.03}
    for name, group in grouped:
        is_norm_or_bias = "norm" in name or "bias" in name
        assert group["weight_decay"] == (0.0 if is_norm_or_bias else 0.1), name
        assert group["lr"] == rates[part_of(name)], name
    assert {part_of(name) for name, _ in grouped} == set(rates)


def test_alternating_updates_start_with_the_router_and_change_after_alternate_every_steps():
    frozen = ["bart" if "bart" in frozen_parts(step, 3) else "router" for step in range(8)]
    assert frozen == ["bart"] * 2 + ["router"] * 3 + ["bart"] * 3
    assert frozen_parts(0, 0) == set()


# ---- what a step depends on


@pytest.mark.parametrize("mode", ["gumbel_softmax_st", "softmax"])
def test_the_split_into_micro_batches_does_not_change_routes_loss_or_parameters(make_stepper, mode):
    runs, n_groups, drawn = [], [], []
    for max_tokens in (0, 40, 1):  # no limit, a few groups, one group per example
        stepper = make_stepper({"max_tokens_per_micro_batch": max_tokens}, router_mode=mode)
        draw_routes, routes = stepper.model.draw_routes, []
        stepper.model.draw_routes = lambda ids, draw=draw_routes, kept=routes: (
            kept.append(draw(ids)) or kept[-1]
        )
        n_groups.append(len(stepper.split(0)[2]))
        reports = [stepper.step(step) for step in range(2)]
        runs.append((parameters(stepper), reports))
        drawn.append(torch.stack(routes[:1]))
    assert n_groups == sorted(set(n_groups))
    assert n_groups[-1] == 6
    for others, reports in runs[1:]:
        assert_same(others, runs[0][0], 1e-9)
        for report, expected in zip(reports, runs[0][1], strict=True):
            assert report == pytest.approx(expected, rel=1e-9)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


def test_a_step_is_bit_identical_for_the_same_seed_and_step(make_stepper):
    fields = dict(bart_fields={"dropout": 0.3}, dtype=torch.float32, exploration_epsilon=0.3)
    one, other, third = make_stepper(**fields), make_stepper(**fields), make_stepper({"seed": 2}, **fields)
    for step in range(3):
        torch.manual_seed(step)
        first = one.step(step)
        torch.manual_seed(100 + step)
        assert other.step(step) == first
        third.step(step)
    assert_same(parameters(one), parameters(other))
    assert not torch.equal(one.model.model.shared.weight, third.model.model.shared.weight)


def test_an_unselected_expert_takes_the_same_step_as_on_the_dense_path(make_stepper):
    sparse, dense = (make_stepper({"train_batch_size": 1}) for _ in range(2))
    dense.model.forward = functools.partial(dense.model.forward, sparse=False)
    gradients = []
    recorded(sparse, gradients)
    before = None
    for step in range(4):
        before = parameters(sparse)
        sparse.step(step)
        dense.step(step)
        assert_same(parameters(sparse), parameters(dense), 1e-12)
    after = parameters(sparse)
    unchosen = [name for name, g in gradients[-1].items() if ".experts." in name and not g.any()]
    assert unchosen
    # Momentum of earlier steps still changes it.
    assert any(not torch.equal(before[name], after[name]) for name in unchosen)


def test_gradients_are_clipped_by_the_norm_of_the_whole(make_stepper):
    kept = []
    report = recorded(make_stepper({"max_grad_norm": 0.1}), kept).step(0)
    whole = math.sqrt(sum(float(g.square().sum()) for g in kept[0].values()))
    assert whole == pytest.approx(0.1, rel=1e-4)
    assert report["grad_norm"] > 1


def test_expert_regularisation_adds_its_hand_computed_gradient_once_per_published_batch(make_stepper):
    plain, regularised = [], []
    sizes = {"train_batch_size": 2, "gradient_accumulation_steps": 3}
    recorded(make_stepper(sizes), plain).step(0)
    stepper = recorded(make_stepper(sizes | {"expert_regularization": 0.5}), regularised)
    at_start = parameters(stepper)
    stepper.step(0)
    for name, gradient in regularised[0].items():
        expected = torch.zeros_like(gradient)
        if ".experts.0." in name:
            others = [name.replace(".experts.0.", f".experts.{e}.") for e in (1, 2)]
            differences = [at_start[name] - at_start[other] for other in others]
            # Two of the three pairs contain this expert; the derivative of a norm is the unit vector.
            expected = 0.5 * 3 * sum(d / torch.linalg.vector_norm(d) for d in differences) / 3
        elif ".experts." in name:
            continue
        torch.testing.assert_close(gradient - plain[0][name], expected, rtol=1e-7, atol=1e-9)


def test_a_process_without_micro_batches_sums_the_same_tensors_as_the_others(make_stepper):
    summed = []
    for index in (0, 1):
        stepper = make_stepper({"train_batch_size": 1})
        stepper.accelerator = OneOfSeveral(index, 2, stepper.accelerator)
        assert len(stepper.own_groups(*stepper.split(0))) == (1 if index == 0 else 0)
        stepper.step(0)
        summed.append([(tensor.shape, reduction) for tensor, reduction in stepper.accelerator.summed])
    assert summed[0] == summed[1]


def test_with_a_loss_scaler_a_process_without_micro_batches_takes_the_first_step_too(make_stepper):
    plain = make_stepper({"train_batch_size": 1}, dtype=torch.float32)
    expected = plain.step(0)
    for index in (0, 1):
        made = make_stepper({"train_batch_size": 1}, dtype=torch.float32)
        accelerator = OneOfSeveral(index, 2, scaled(made.accelerator))
        stepper = Stepper(made.model, made.examples, made.settings, accelerator)
        report = stepper.step(0)
        assert report["grad_norm"] == (pytest.approx(expected["grad_norm"]) if index == 0 else 0.0)
        assert accelerator.scaler.get_scale() == 2**8
        if index == 0:
            assert_same(parameters(stepper), parameters(plain), 1e-6)


def scaled(accelerator: Accelerator) -> Accelerator:
    """Returns the accelerator with a loss scaler as for fp16, but with float32 products."""
    accelerator.scaler, accelerator.native_amp = torch.amp.GradScaler("cpu", init_scale=2.0**8), True
    accelerator.state._mixed_precision, accelerator.autocast = "fp16", nullcontext
    accelerator._optimizers.clear()
    return accelerator


# ---- the load-balancing loss: its value and its gradient against loops


def slow_load_imbalance(routes_BLE: torch.Tensor) -> torch.Tensor:
    """Equations 4 to 6 of the Switch Transformers paper, number by number, summed over layers."""
    B, L, E = routes_BLE.shape
    total = 0
    for layer in range(L):
        chosen = [int(routes_BLE[b, layer].argmax()) for b in range(B)]
        for expert in range(E):
            mean_weight = sum(routes_BLE[b, layer, expert] for b in range(B)) / B
            total += E * (chosen.count(expert) / B) * mean_weight
    return total


def test_load_imbalance_equals_loops_and_is_least_for_equal_loads():
    routes_BLE = torch.randn(7, 3, 4, dtype=torch.float64).softmax(-1)
    assert float(load_imbalance(routes_BLE)) == pytest.approx(float(slow_load_imbalance(routes_BLE)))
    assert float(load_imbalance(torch.eye(4)[:, None].expand(4, 3, 4))) == 3  # each example its own expert
    assert float(load_imbalance(torch.eye(4)[:1, None].expand(7, 3, 4))) == 3 * 4  # all the same expert


@pytest.mark.parametrize("mode", ["softmax", "gumbel_softmax_st"])
def test_load_balance_adds_the_gradient_of_its_definition_to_router_and_task_vectors(make_stepper, mode):
    plain, balanced, weight = [], [], 0.3
    fields = dict(router_mode=mode, bart_fields=dict(encoder_layers=2), encoder_vanilla_layers=[0])
    recorded(make_stepper(**fields), plain).step(0)
    recorded(make_stepper({"load_balance": weight}, **fields), balanced).step(0)
    reference = make_stepper(**fields)
    routes_BLE = routes_of_step(reference, 0)[:, 1:]  # without the vanilla layer
    (weight * len(routes_BLE) * slow_load_imbalance(routes_BLE)).backward()
    changed = set()
    for name, p in reference.model.named_parameters():
        expected = torch.zeros_like(p) if p.grad is None else p.grad
        torch.testing.assert_close(balanced[0][name] - plain[0][name], expected, rtol=1e-7, atol=1e-9)
        if expected.any():
            changed.add(part_of(name))
    assert changed == {"router", "vectors"}


def routes_of_step(stepper, step: int) -> torch.Tensor:
    """Returns the routes that a step draws, with their graph."""
    drawn = []
    draw_routes = stepper.model.draw_routes
    stepper.model.draw_routes = lambda task_ids: drawn.append(draw_routes(task_ids)) or drawn[-1].detach()
    stepper.optimizer.step = lambda: None
    stepper.step(step)
    return drawn[0]


# ---- what a step does not change


def test_frozen_task_vectors_and_a_router_with_rate_0_do_not_change(make_stepper):
    stepper = make_stepper({"router_lr": 0, "weight_decay": 0.5})
    stepper.model.task_vectors.weight.requires_grad_(False)
    stepper = Stepper(stepper.model, stepper.examples, stepper.settings, stepper.accelerator)
    before = parameters(stepper)
    for step in range(3):
        stepper.step(step)
    after = parameters(stepper)
    for name in before:
        assert torch.equal(before[name], after[name]) == (part_of(name) != "bart"), name


def test_frozen_parts_keep_their_parameters_and_moments(make_stepper):
    stepper = make_stepper({"alternate_every": 1, "weight_decay": 0.5})
    parts = ["bart", "router", "vectors"]
    for step in range(4):
        before, state = parameters(stepper), {part: moments(stepper, part) for part in parts}
        stepper.step(step)
        after, frozen = parameters(stepper), frozen_parts(step, 1)
        for part in parts:
            same = [torch.equal(before[name], after[name]) for name in before if part_of(name) == part]
            assert all(same) if part in frozen else not all(same)
            if part in frozen:
                assert all(p.grad is None for _, p in stepper.model.named_parameters())
                assert_same(dict(enumerate(state[part])), dict(enumerate(moments(stepper, part))))
    assert len(moments(stepper, "bart")) > 100


def test_a_loss_that_is_not_finite_stops_before_changes_and_names_step_and_tasks(make_stepper):
    stepper = make_stepper({"train_batch_size": 1})
    stepper.step(0)
    before = parameters(stepper)
    stepper.model.final_logits_bias[0, 7] = math.nan
    with pytest.raises(TrainingDiverged) as stopped:
        stepper.step(1)
    task = stepper.model.config.task_names[stepper.examples.task_ids_N[stepper.split(1)[0][0]]]
    assert str(stopped.value) == f"the loss is nan at step 2; tasks in the batch: {task}"
    assert_same(parameters(stepper), before)
    assert all(p.grad is None for p in stepper.model.parameters())


# ---- the published code's steps


class DecayAfterwards:
    """The published code's AdamW: weight decay after the step, also for layer norms but not for biases."""

    def __init__(self, model, groups):
        self.param_groups, self.moments = groups, {}
        self.decayed = {p for name, p in model.named_parameters() if not name.endswith("bias")}

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                t, mean, square = self.moments.get(p, (0, torch.zeros_like(p), torch.zeros_like(p)))
                t, mean, square = t + 1, mean.lerp(p.grad, 0.1), square.lerp(p.grad.square(), 0.001)
                self.moments[p] = (t, mean, square)
                rate = group["lr"] * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
                p.sub_(rate * mean / (square.sqrt() + 1e-8))
                if p in self.decayed:
                    p.mul_(1 - group["lr"] * 0.01)

    def zero_grad(self, set_to_none):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None


@pytest.mark.parametrize("mode", ["softmax", "gumbel_softmax_st"])
def test_six_steps_equal_those_of_the_published_code(mode, published_numbers, published_run):
    numbers = load_file(published_numbers / f"trajectory_{mode}.safetensors")
    batch = load_file(published_numbers / "batch.safetensors")
    arguments = json.loads((published_numbers / "trajectory.json").read_text())
    arguments = {k: v for k, v in arguments.items() if k != "freeze_task_model"}
    rows = {side: [row[row != 1] for row in batch[f"{side}_ids"]] for side in ("input", "decoder_input")}
    model = RoutingBartForConditionalGeneration.from_upstream(published_run)
    model.config.router_mode = mode
    stepper = Stepper(
        model,
        encoded(rows["input"], rows["decoder_input"], batch["task_ids"]),
        settings_with(**arguments),
        Accelerator(cpu=True),
    )
    stepper.optimizer = DecayAfterwards(model, stepper.optimizer.param_groups)
    stepper.absent_rows = ()  # their vectors decay, too
    before, everything = parameters(stepper), np.arange(4)
    stepper.split = lambda step: (everything, np.zeros(4, dtype=int), [everything])
    for step, expected in enumerate(numbers["loss"]):
        if mode == "gumbel_softmax_st":
            model.draw_routes = functools.partial(routes_with_noise, stepper, step, numbers["noise"][step])
        report = stepper.step(step)
        assert report["loss"] == pytest.approx(expected, rel=1e-5), step
        assert report["grad_norm"] == pytest.approx(numbers["grad_norm"][step], rel=1e-4), step
        assert report["lr_factor"] * 0.001 == pytest.approx(numbers["lr"][step], rel=1e-7)
        assert stepper.settings.temperature(step) == pytest.approx(numbers["tau"][step], rel=1e-7)
    state = model.state_dict()
    recorded_parameters = {
        upstream_name(name.removeprefix("param/")): numbers[name] for name in numbers if "param/" in name
    }
    assert len(recorded_parameters) == 7
    for name, expected in (recorded_parameters | {"task_vectors.weight": numbers["task_vecs"]}).items():
        rows = slice(
            None, None, 4 if name == "model.shared.weight" else 1
        )  # the reference has every fourth row of these
        torch.testing.assert_close(state[name][rows], torch.from_numpy(expected), rtol=0, atol=1e-5)
        assert (state[name] - before[name]).abs().max() > 1e-4, name


def routes_with_noise(stepper, step, noise_SLBE, task_ids_B):
    """Straight-through routes of the recorded Gumbel noise (side, layer, example, expert)."""
    noise_BLE = torch.from_numpy(noise_SLBE).flatten(0, 1).transpose(0, 1)
    logits_BLE = stepper.model.router_logits(task_ids_B)
    soft_BLE = torch.softmax((logits_BLE + noise_BLE) / stepper.settings.temperature(step), dim=-1)
    hard_BLE = F.one_hot(soft_BLE.argmax(-1), 3).to(soft_BLE)
    return hard_BLE - soft_BLE.detach() + soft_BLE


# ---- compiled layers, with a backend that runs the traced graphs

COMPILED = {
    "straight_through": dict(decoder_vanilla_layers=[0]),
    "low-rank": dict(router_mode="softmax", expert_kind="lora", lora_rank=2, lora_targets="attention"),
}


@pytest.fixture
def traced(monkeypatch):
    """Lets `compile_layers` use the backend "eager", which needs no C++ compiler; undoes its effects."""
    traced_only = functools.partialmethod(torch.nn.Module.compile, backend="eager")
    monkeypatch.setattr(torch.nn.Module, "compile", traced_only)
    with torch._dynamo.config.patch(recompile_limit=8):
        yield
    torch.compiler.set_stance("default")
    torch._dynamo.reset()


@pytest.mark.parametrize(("kind", "steps"), [("straight_through", 1), ("low-rank", 2)])
def test_steps_equal_those_of_uncompiled_layers(kind, steps, make_stepper, traced, batch):
    plain, other = (make_stepper(num_experts=2, **COMPILED[kind]) for _ in range(2))
    settings = dataclasses.replace(other.settings, compile=True)
    other = Stepper(other.model, other.examples, settings, other.accelerator)
    assert list(other.model.state_dict()) == list(plain.model.state_dict())
    torch._dynamo.utils.counters.clear()
    for number in range(steps):
        assert other.step(number) == pytest.approx(plain.step(number), rel=1e-9)
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        evaluation = dict(task_ids=torch.arange(4), max_length=5, num_beams=2)
        other.model.eval().generate(batch["input_ids"], **evaluation)  # compiles nothing
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs > 0
    assert kind != "low-rank" or graphs == 2  # one for each layer, also in the second step
    assert not torch._dynamo.utils.counters["graph_break"]
    assert_same(parameters(other), parameters(plain), 1e-9)
