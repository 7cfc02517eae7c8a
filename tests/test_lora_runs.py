"""Whole commands with low-rank experts: runs, both stages, vectors, fine-tuning, errors about their BART."""

import json

import numpy as np
import pytest
import tiny_vectors
import torch
from tiny_grids import NO_ROUTER, QUICK, TASK
from tiny_runs import assert_equal, assert_same_run, typed, weights

from routing_moe.cli.merge import main as merge
from routing_moe.model.base import is_of_base
from routing_moe.model.lora import is_of_expert
from routing_moe.model.mixtures import load_mixture
from task.task_emb.gradients import fisher_batches, log_likelihood_of

pytestmark = pytest.mark.usefixtures("quick_pictures")

LORA = dict(expert_kind="lora", lora_rank=2, init_eps=None)
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


def base_of(checkpoint):
    """Returns the folder that a checkpoint names as its base, by a path from itself."""
    base = json.loads((checkpoint / "config.json").read_text())["base_model"]
    return base and (checkpoint / base).resolve()


def test_a_resumed_run_is_that_of_an_uninterrupted_one(world):
    changed = SOFT | dict(lora_mixing="factors", lora_dropout=0.1, load_balance=0.1)
    whole = world.run("lora", **changed)
    assert_same_run(world.resumed("lora stopped", **changed), whole)
    assert not any(map(is_of_base, weights(whole / "best")))
    assert base_of(whole / "best") == world.bart


def test_stage_2_begins_with_updates_of_zero_of_the_bart_that_is_named(world, soft_lora, one_lora):
    for vanilla, base in ((None, world.bart), (one_lora, one_lora / "best")):
        out = world / f"stage_2_of_{base.parent.name}"
        given = dict(routes_from=soft_lora, model=world.bart, vanilla_checkpoint=vanilla, output_dir=out)
        assert merge(typed(given)) == 0
        state = weights(out / "init")
        assert not any(map(is_of_base, state))
        assert not any(tensor.any() for name, tensor in state.items() if name.endswith("lora_B"))
        assert base_of(out / "init") == base
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
