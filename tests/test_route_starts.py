"""Starts for unseen tasks: the experts merged into one BART, and a route learned with frozen experts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from test_finetuning_routes import MIXTURES
from tiny_grids import QUICK, SAMPLES, TASK, predictions, results
from tiny_runs import assert_equal, weights
from torch.nn import functional as F

from routing_moe.evaluation.route_losses import losses_along
from routing_moe.finetuning.starting_model import along_route, set_trained
from routing_moe.model.mixtures import load_mixture
from routing_moe.model.selection import LEAST_WEIGHT, route_logits
from routing_moe.optim.step import Stepper
from routing_moe.task_choice.choice import TaskChoice
from routing_moe.task_choice.learned import learn_route

SOFT_LE = np.random.default_rng(0).dirichlet(np.full(3, 5.0), 4)
SOURCES = {
    "learned": dict(router_mode="softmax"),
    "average": dict(route_source="average"),
    "random": dict(route_source="random"),
    "fixed": dict(route_source="fixed"),
}


def given(route_LE) -> TaskChoice:
    return TaskChoice(TASK, "given", "given route", route_LE=np.array(route_LE))


def start(grids, mixture, training: str, route_LE=None):
    """Returns the model of a start along a route (None: the mixture's own average or random routes)."""
    settings = replace(grids.settings("unused"), route_training=training)
    model, words = along_route(mixture, settings, None if route_LE is None else given(route_LE))
    set_trained(model, settings.route_training, settings.freeze_embeds)
    return model.eval(), words


def averaged_by_hand(mixture, route_LE) -> dict:
    """Returns the plain BART's state dict: each weight averaged over the experts in turn, in float64."""
    averaged = {}
    for name, tensor in mixture.state_dict().items():
        side, _, rest = name.removeprefix("model.").partition(".layers.")
        if name.startswith(("router", "task_", "route_")):
            continue
        if ".experts." not in name:
            averaged[name] = tensor
            continue
        layer, _, expert, rest = rest.split(".", 3)
        row = int(layer) + (mixture.config.encoder_layers if side == "decoder" else 0)
        name = f"model.{side}.layers.{layer}.{rest}"
        averaged[name] = averaged.get(name, 0) + float(route_LE[row][int(expert)]) * tensor.double()
    return {name: tensor.float() for name, tensor in averaged.items()}


@pytest.mark.parametrize("source", SOURCES)
def test_merged_experts_are_averaged_by_the_route(source, grids, make_model, batch):
    mixture = make_model(encoder_vanilla_layers=[1], dtype=torch.float32, **SOURCES[source])
    is_mean = source in ("average", "random")
    route_LE = np.full((4, 3), 1 / 3) if is_mean else SOFT_LE
    by_hand = averaged_by_hand(mixture, route_LE)
    model, words = start(grids, mixture, "merged", None if is_mean else SOFT_LE)
    assert words == ("average" if is_mean else "given route") + "; merged plain model"
    assert model.config.num_experts == 1
    torch.testing.assert_close(dict(model.to_bart(torch.ones(4, 1)).state_dict()), by_hand)
    reference = make_model(num_experts=1, dtype=torch.float32)
    names = {name: name.replace(".experts.0", "") for name in reference.state_dict()}
    reference.load_state_dict({name: by_hand[plain] for name, plain in names.items()})
    grads = []
    for one in (model, reference):
        one(**batch).loss.backward()
        grads.append({name: p.grad for name, p in one.named_parameters()})
    torch.testing.assert_close(*grads)


def test_logits_start_as_the_route(make_model):
    assert torch.equal(route_logits(torch.full((4, 3), 1 / 3)), torch.zeros(4, 3))
    soft_LE = torch.tensor([[0.7, 0.2, 0.1], [0.02, 0.49, 0.49]])
    torch.testing.assert_close(route_logits(soft_LE).softmax(-1), soft_LE)
    one_hot_LE = route_logits(torch.eye(3)).softmax(-1)
    torch.testing.assert_close(one_hot_LE.diag(), torch.full((3,), 1 / (1 + 2 * LEAST_WEIGHT)))


def learned_slowly(model, batch_of, logits_LE, steps: int, rate: float):
    """Returns (losses, logits) of training by hand: every expert in turn, one example at a time, AdamW."""
    logits_LE = logits_LE.clone().requires_grad_()
    optimizer, losses = torch.optim.AdamW([logits_LE], lr=rate, weight_decay=0.0), []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (steps - step) / steps
        route_1LE = F.softmax(logits_LE, dim=-1)[None]
        loss = sum(model(**example, routes=route_1LE, sparse=False).loss for example in batch_of(step))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([logits_LE], 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses, logits_LE.detach()


@pytest.mark.parametrize(("source", "mixing"), [("learned", "outputs"), ("average", "parameters")])
def test_logits_are_learned_as_by_a_slow_loop(source, mixing, grids, make_model, task_examples):
    mixture = make_model(expert_mixing=mixing, encoder_vanilla_layers=[1], **SOURCES[source])
    reference = make_model(expert_mixing=mixing, encoder_vanilla_layers=[1], route_source="average")
    reference.load_state_dict(mixture.state_dict(), strict=False)
    route_LE = None if source == "average" else SOFT_LE
    model, words = start(grids, mixture, "logits", route_LE)
    assert words == ("average" if route_LE is None else "given route") + "; logits trained"
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 4 * 3
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    settings = grids.settings("unused", total_steps=3, warmup_steps=0, learning_rate_list=[0.3])
    settings = replace(settings, route_training="logits")
    recipe = settings.step_settings(settings.configurations()[0], temperature=1.0)
    stepper = Stepper(model, task_examples, recipe, Accelerator(cpu=True))

    def batch_of(step):
        indices, choices, _ = stepper.split(step)
        for index, choice in zip(indices, choices, strict=True):
            example = task_examples.collate([index], [choice], pad_token_id=1)
            yield {name: example[name] for name in ("input_ids", "attention_mask", "labels")}

    begun_LE = route_logits(torch.full((4, 3), 1 / 3) if route_LE is None else torch.tensor(route_LE))
    losses, logits_LE = learned_slowly(reference.train(), batch_of, begun_LE.double(), 3, 0.3)
    assert [stepper.step(step)["loss"] for step in range(3)] == pytest.approx(losses, rel=1e-9)
    torch.testing.assert_close(model.task_vectors.weight.detach()[0].view(4, 3), logits_LE)
    assert (logits_LE - begun_LE).abs().max() > 0.3
    after = dict(model.named_parameters())
    assert_equal({name: after[name].detach() for name in frozen}, frozen)


def test_a_grid_of_logits_saves_the_route(grids):
    mixture = grids.mixture("mixture_merged", **MIXTURES["merged"])
    flags = QUICK | dict(route_training="logits", learning_rate_list=[0.5], save_best=True, init_dir=mixture)
    folder = grids.run("logits", moe_init=True, **flags)
    assert set(results(folder)["route"].str.rpartition("; ")[2]) == {"logits trained"}
    best = folder / f"models/{SAMPLES[0]}_best"
    before, after = weights(mixture / "best"), weights(best)
    route_LE = after.pop("task_routes")[0]
    experts = {name: tensor for name, tensor in before.items() if name in after}
    assert_equal(after, experts)
    model = load_mixture(best)
    assert torch.equal(model.routes_for([TASK])[0], route_LE)
    torch.testing.assert_close(route_LE.sum(-1), torch.ones(3))
    assert not torch.equal(route_LE, torch.full((3, 2), 0.5))
    scored = dict.fromkeys(("do_train", "learning_rate_list", "bsz_list", "total_steps", "warmup_steps"))
    again = grids.run("logits_scored", moe_init=True, init_dir=best, **(QUICK | scored))
    assert list(predictions(again).values()) == list(predictions(folder).values())
    assert results(again)["route"].str.startswith("given route; ").all()


def learn(model, examples, **changed):
    asked = dict(task="new", examples=examples, steps=20, rate=0.3, seed=3) | changed
    return learn_route(model, **asked, accelerator=Accelerator(cpu=True))


@pytest.mark.parametrize("source", ["learned", "random"])
def test_a_learned_route_lowers_the_loss_and_leaves_the_model_as_it_was(source, make_model, examples):
    model = make_model(exploration_epsilon=0.5, **SOURCES[source]).train()
    next(model.parameters()).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config, graded = model.config.to_dict(), [p.requires_grad for p in model.parameters()]
    first, again = learn(model, examples, steps=3), learn(model, examples, steps=3)
    assert np.array_equal(first.route_LE, again.route_LE)
    routes_KLE = torch.tensor(np.stack([first.route_LE, np.full((4, 3), 1 / 3)]))
    found, average = losses_along(model, examples, routes_KLE.double(), Accelerator(cpu=True)).mean(axis=0)
    assert found < average
    assert_equal(dict(model.state_dict()), before)
    assert model.config.to_dict() == config
    assert [p.requires_grad for p in model.parameters()] == graded
    assert (learn(model, examples, steps=1, rate=0.0).route_LE == np.float32(1 / 3)).all()
