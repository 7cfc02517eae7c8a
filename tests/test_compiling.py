"""Compiled layers give the steps of those that are not; tested with a backend that runs the traced graphs."""

import dataclasses
from functools import partial

import pytest
import torch
from tiny_steps import parameters

from routing_moe.optim import step

KINDS = {
    "straight_through": dict(decoder_vanilla_layers=[0]),
    "low-rank": dict(router_mode="softmax", expert_kind="lora", lora_rank=2, lora_targets="attention"),
}


@pytest.fixture
def traced(monkeypatch):
    """Lets `compile_layers` use the backend "eager", which needs no C++ compiler; undoes its effects."""
    monkeypatch.setattr(step, "compile_layers", partial(step.compile_layers, backend="eager"))
    with torch._dynamo.config.patch(recompile_limit=8):
        yield
    torch.compiler.set_stance("default")
    torch._dynamo.reset()


@pytest.mark.parametrize(("kind", "steps"), [("straight_through", 1), ("low-rank", 2)])
def test_steps_equal_those_of_uncompiled_layers(kind, steps, make_stepper, traced, batch):
    plain, other = (make_stepper(num_experts=2, **KINDS[kind]) for _ in range(2))
    settings = dataclasses.replace(other.settings, compile=True)
    other = step.Stepper(other.model, other.examples, settings, other.accelerator)
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
    for name, p in parameters(other).items():
        torch.testing.assert_close(p, parameters(plain)[name], rtol=0, atol=1e-9)
