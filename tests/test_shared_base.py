"""Experts with a shared base: steps as with parameters for base and differences, runs, starts from a base."""

import copy
import json
import re

import pytest
import torch
from test_task_routes import FIXED
from tiny_grids import NO_ROUTER
from tiny_runs import NO_LEARNING, assert_equal, assert_same_run, typed, weights
from tiny_steps import parameters
from transformers import BartForConditionalGeneration

from routing_moe.cli.export import main as export
from routing_moe.model.base import base_tensors, is_of_base
from routing_moe.model.mixtures import load_mixture
from routing_moe.optim.step import frozen_parts, linear_warmup_decay, part_of

pytestmark = pytest.mark.usefixtures("quick_pictures")

# Without a large epsilon, steps of Adam hardly depend on the scale of gradients.
SHARED = dict(shared_base=True, weight_decay=0, adam_epsilon=1e-3)
RATES = {"bart": 0.01, "router": 0.02, "vectors": 0.03}


def without_expert(name: str) -> str:
    return re.sub(r"\.experts\.\d+\.", ".experts.", name)


class Slow:
    """Trains a base and a difference for each expert as parameters of their own, one example at a time."""

    def __init__(self, stepper, base_lr: float):
        self.stepper, self.model = stepper, copy.deepcopy(stepper.model).train()
        named = {name: p.detach() for name, p in self.model.named_parameters()}
        self.base = {without_expert(name): p * 0.3 for name, p in named.items() if ".experts.2." in name}
        self.own = {name: p - self.base.get(without_expert(name), 0) for name, p in named.items()}
        parts = [part_of(name) for name in self.own]
        groups = [
            {"params": [p], "peak": RATES[part], "part": part}
            for part, p in zip(parts, self.own.values(), strict=True)
        ]
        groups.append({"params": list(self.base.values()), "peak": base_lr, "part": "bart"})
        self.optimizer = torch.optim.AdamW(groups, eps=1e-3, weight_decay=0)

    def parameters(self) -> dict[str, torch.Tensor]:
        return {name: p + self.base.get(without_expert(name), 0) for name, p in self.own.items()}

    def step(self, step: int) -> None:
        settings = self.stepper.settings
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * linear_warmup_decay(step, 0, settings.total_steps)
            for p in group["params"]:
                p.requires_grad_(group["part"] not in frozen_parts(step, settings.alternate_every))
        self.model.config.router_temperature = settings.temperature(step)
        indices, choices, _ = self.stepper.split(step)
        for index, choice in zip(indices, choices, strict=True):
            example = self.stepper.examples.collate([index], [choice], pad_token_id=1)
            call = torch.func.functional_call
            call(self.model, self.parameters(), kwargs=example | {"sparse": False}).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


@pytest.mark.parametrize(
    ("routes", "changed"), [("soft", dict(alternate_every=1)), ("given", dict(base_lr=0.002))]
)
def test_steps_equal_those_of_a_base_and_differences_as_parameters(routes, changed, make_stepper):
    fields = dict(router_mode="softmax")
    if routes == "given":
        fields = dict(route_source="fixed", given_routes="a file", encoder_vanilla_layers=[0])
        fields["bart_fields"] = dict(encoder_layers=2)
    stepper = make_stepper(SHARED | changed, **fields)
    if routes == "given":  # no task has expert 2
        choices_NL = torch.tensor([[0, 0, 1], [0, 1, 0], [0, 1, 1], [0, 0, 1]])
        stepper.model.task_routes.copy_(torch.nn.functional.one_hot(choices_NL, 3))
    slow, before = Slow(stepper, changed.get("base_lr", 0.01)), parameters(stepper)
    for step in range(2):
        stepper.step(step)
        slow.step(step)
    after, expected = parameters(stepper), slow.parameters()
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-10)
    for name in (name for name in after if name.endswith("experts.2.fc1.weight")):
        assert not torch.equal(after[name], before[name])
    assert not any(step.any() for step in stepper.base.steps)


def test_a_single_expert_is_trained_as_without_the_flag(make_stepper):
    one, shared = (make_stepper(flags, num_experts=1) for flags in ({}, dict(shared_base=True)))
    for step in range(2):
        assert one.step(step) == shared.step(step)
    assert_equal(parameters(shared), parameters(one))


def test_a_resumed_run_is_that_of_an_uninterrupted_one_and_its_experts_are_complete(world, tmp_path, batch):
    changed = dict(shared_base=True, alternate_every=2, base_lr=0.005)
    whole = world.run("shared_base", **changed)
    assert_same_run(world.resumed("shared_base_stopped", **changed), whole)
    model = load_mixture(whole / "best").eval()
    assert model.config.base_model is None
    assert export(typed(dict(checkpoint=whole, task="colour", output_dir=tmp_path / "colour"))) == 0
    bart = BartForConditionalGeneration.from_pretrained(tmp_path / "colour").eval()
    with torch.no_grad():
        logits = model(**batch, routes=model.routes_for(["colour"] * 4)).logits
        torch.testing.assert_close(logits, bart(**batch).logits)


LORA = NO_ROUTER | dict(num_experts=None, task_routes="tasks", expert_kind="lora", lora_rank=2, init_eps=None)


@pytest.fixture(scope="module")
def deltas(world):
    """A run of low-rank experts on a BART that is trained, too. Must not be changed."""
    return world.run("deltas_on_a_base", **LORA, shared_base=True, total_steps=1)


def base_of(checkpoint) -> dict[str, torch.Tensor]:
    return base_tensors(load_mixture(checkpoint))


def test_complete_experts_are_copies_of_the_base_of_low_rank_experts(world, deltas):
    start = NO_LEARNING | FIXED | dict(task_routes="tasks", init_eps=0, vanilla_checkpoint=deltas)
    folder = world.run("from_a_base", **start)
    model = load_mixture(folder / "best")
    base, trained = base_of(deltas / "best"), weights(world.bart)
    base = {name.removeprefix("backbone."): tensor for name, tensor in base.items()}
    for route_LE in model.routes_for(["colour", "count", "opposite"]):
        bart = model.to_bart(route_LE).state_dict()
        assert_equal({name: bart[name] for name in base}, base)
    assert not torch.equal(base["model.shared.weight"], trained["model.shared.weight"])


def test_low_rank_experts_on_such_a_base_are_saved_with_it(world, deltas):
    folder = world.run("deltas_from_a_base", **LORA, vanilla_checkpoint=deltas, total_steps=1)
    assert any(map(is_of_base, weights(folder / "best")))
    assert json.loads((folder / "best/config.json").read_text())["base_model"] is None
    assert_equal(base_of(folder / "best"), base_of(deltas / "best"))
