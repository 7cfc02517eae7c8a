"""What experts share: steps as with parameters for a base and differences, and whole commands with each."""

import copy
import json
import re

import numpy as np
import pytest
import tiny_vectors
import torch
from test_task_routes import FIXED
from tiny_grids import NO_ROUTER, QUICK, TASK
from tiny_runs import NO_LEARNING, assert_equal, assert_same_run, typed, weights
from tiny_steps import parameters
from transformers import BartForConditionalGeneration

from routing_moe.cli.export import main as export
from routing_moe.cli.merge import main as merge
from routing_moe.model.base import base_tensors, is_of_base
from routing_moe.model.lora import is_of_expert
from routing_moe.model.mixtures import load_mixture
from routing_moe.optim.step import frozen_parts, linear_warmup_decay, part_of
from task.task_emb.gradients import fisher_batches, log_likelihood_of

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


LORA = dict(expert_kind="lora", lora_rank=2, init_eps=None)
OF_TASKS = LORA | NO_ROUTER | dict(num_experts=None, task_routes="tasks")


@pytest.fixture(scope="module")
def deltas(world):
    """A run of low-rank experts on a BART that is trained, too. Must not be changed."""
    return world.run("deltas_on_a_base", **OF_TASKS, shared_base=True, total_steps=1)


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
    folder = world.run("deltas_from_a_base", **OF_TASKS, vanilla_checkpoint=deltas, total_steps=1)
    assert any(map(is_of_base, weights(folder / "best")))
    assert json.loads((folder / "best/config.json").read_text())["base_model"] is None
    assert_equal(base_of(folder / "best"), base_of(deltas / "best"))


# ---- whole commands with low-rank experts

SOFT = LORA | dict(router_mode="softmax", initial_tau=0.5)
ONE = LORA | NO_ROUTER | dict(num_experts=1)
STARTS = dict(initialize_from_vanilla=None, model=None, num_experts=None, expert_kind=None, lora_rank=None)
STARTS |= dict(taskvecs_dim=None, router_hidden_dim=None, init_eps=None)


@pytest.fixture(scope="session")
def soft_lora(world, finished):
    """A run with a frozen BART along soft routes."""
    return world.run("soft_lora", **SOFT, total_steps=1)


@pytest.fixture(scope="session")
def one_lora(world, finished):
    """A run of one expert."""
    return world.run("one_lora", **ONE, total_steps=2, eval_period=2)  # the first step changes B alone


def place_of_base(checkpoint):
    """Returns the folder that a checkpoint names as its base, by a path from itself."""
    base = json.loads((checkpoint / "config.json").read_text())["base_model"]
    return base and (checkpoint / base).resolve()


def test_a_resumed_run_is_that_of_an_uninterrupted_one(world):
    changed = SOFT | dict(lora_mixing="factors", lora_dropout=0.1, load_balance=0.1)
    whole = world.run("lora", **changed)
    assert_same_run(world.resumed("lora stopped", **changed), whole)
    assert not any(map(is_of_base, weights(whole / "best")))
    assert place_of_base(whole / "best") == world.bart


def test_stage_2_begins_with_updates_of_zero_of_the_bart_that_is_named(world, soft_lora, one_lora):
    for vanilla, base in ((None, world.bart), (one_lora, one_lora / "best")):
        out = world / f"stage_2_of_{base.parent.name}"
        given = dict(routes_from=soft_lora, model=world.bart, vanilla_checkpoint=vanilla, output_dir=out)
        assert merge(typed(given)) == 0
        state = weights(out / "init")
        assert not any(map(is_of_base, state))
        assert not any(tensor.any() for name, tensor in state.items() if name.endswith("lora_B"))
        assert place_of_base(out / "init") == base
    stage_2 = dict(checkpoint_name="init", router_lr=0, task_model_lr=0, total_steps=1)
    world.run(out.name, **STARTS | stage_2)
    trained, routing = weights(out / "last"), ("router.", "task_vectors.")
    kept = {name: tensor for name, tensor in trained.items() if name.startswith(routing)}
    assert_equal(kept, {name: weights(soft_lora / "best")[name] for name in kept})
    assert any(tensor.any() for name, tensor in trained.items() if name.endswith("lora_B"))


def test_fisher_vectors_of_an_expert_are_mean_squares_of_gradients_by_its_factors(world, one_lora, tmp_path):
    for name, rate in (("at_start", 0.0), ("trained", 0.01)):
        flags = dict(weights="updates", learning_rate=rate, tasks=["colour"])
        assert tiny_vectors.run("fisher", world.gym, one_lora, tmp_path / name, **flags) == 0
    at_start, trained = (tiny_vectors.vectors(tmp_path / name) for name in ("at_start", "trained"))
    fisher = tiny_vectors.loaded("fisher", world, model=one_lora, weights="updates")
    model, likelihood = fisher.model, log_likelihood_of(fisher.model)
    parameters = {name: p.detach() for name, p in model.named_parameters() if is_of_expert(name)}
    squares = []
    for batch in fisher_batches(fisher.encoded("colour", "first"), model, max_tokens=1, n_parameters=1):
        row = {name: value[0] for name, value in batch.items()}
        gradients = torch.func.grad(likelihood)(parameters, row)
        squares.append(torch.cat([gradient.flatten() for gradient in gradients.values()]).square())
    expected = torch.stack(squares).mean(dim=0).numpy()
    np.testing.assert_allclose(at_start["colour"], expected, rtol=1e-3, atol=1e-9)
    assert not np.allclose(trained["colour"], expected, rtol=1e-3)


def grid(grids, name: str, start, **changed):
    """Returns the weights of the best model and its configuration."""
    given = dict(moe_init=True, init_dir=start, save_best=True, learning_rate_list=[0.03])
    folder = grids.run(name, **QUICK | given | changed)
    best = next((folder / "models").glob(f"{TASK}*"))
    return weights(best), json.loads((best / "config.json").read_text())


@pytest.mark.parametrize(("base_lr", "changed"), [(None, {"experts"}), (0.01, {"experts", "base"})])
def test_only_the_chosen_parts_are_trained(grids, soft_lora, base_lr, changed):
    rates = dict(route_training="fixed", base_lr=base_lr)
    after, config = grid(grids, f"lora_{base_lr}", soft_lora, **rates)
    start = load_mixture(soft_lora / "best").state_dict()
    parts = {
        "experts" if is_of_expert(name) else "base" if is_of_base(name) else name.split(".")[0]
        for name, tensor in after.items()
        if name in start and not torch.equal(tensor, start[name])
    }
    assert parts == changed
    assert (config["base_model"] is None) == (base_lr is not None)
