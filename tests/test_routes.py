"""Routes: selection by logits, the sources and their distributions, training and mixing with each of them."""

import math
import warnings

import numpy as np
import pytest
import torch
from conftest import tiny_bart_config
from scipy.stats import chisquare
from transformers import BartForConditionalGeneration

from routing_moe import RoutingBartForConditionalGeneration, select_routes
from routing_moe.model.route_sources import random_task_routes
from routing_moe.model.selection import explore

TASKS = ["a", "b", "c", "d"]
TASK_IDS = torch.tensor([0, 3, 1, 0])
L, E = 4, 3


def make_source(make_model, source, **fields):
    """Returns a model with this route source; "fixed" routes are 2 of 3 experts, drawn for each task."""
    model = make_model(route_source=source, **fields)
    if source == "fixed":
        model.task_routes.copy_(random_task_routes(len(TASKS), L, E, n=2, seed=1))
    return model


SOURCES = [
    ("learned", dict(router_mode="softmax")),
    ("learned", dict(router_mode="gumbel_softmax")),
    ("learned", dict(router_mode="gumbel_softmax_st")),
    ("learned", dict(router_mode="top_k")),
    ("learned", dict(router_mode="bernoulli")),
    ("learned", dict(router_mode="softmax", exploration_epsilon=0.3)),
    ("average", {}),
    ("random", {}),
    ("fixed", {}),
]
every_source = pytest.mark.parametrize(
    ("source", "fields"), SOURCES, ids=[f"{s}-{'-'.join(map(str, f.values()))}" for s, f in SOURCES]
)


def assert_draws_follow(counts, probabilities) -> None:
    """Asserts that 10,000 seeded draws fit the exact distribution (chi-square, p > 0.001)."""
    assert counts.sum() == pytest.approx(10_000)
    assert len(counts) == 1 or chisquare(counts, 10_000 * np.asarray(probabilities)).pvalue > 0.001


# ---- selection


def test_straight_through_has_the_gradients_of_the_gumbel_softmax():
    gradients = []
    for mode in ("gumbel_softmax", "gumbel_softmax_st"):
        logits = torch.tensor([[[0.3, -0.2, 0.1]]], requires_grad=True)
        torch.manual_seed(1)
        (select_routes(logits, mode, 0.7) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(*gradients)


def test_a_high_temperature_is_the_average_and_the_noise_free_choice_the_argmax():
    logits = torch.randn(6, 4, 3)
    warm = select_routes(logits, "softmax", 300)
    torch.testing.assert_close(warm, torch.full((6, 4, 3), 1 / 3), atol=5e-3, rtol=0)
    hard = select_routes(logits, "gumbel_softmax_st", 0.5, noise=False)
    assert torch.equal(hard.argmax(-1), logits.argmax(-1))
    assert hard.unique().tolist() == [0.0, 1.0]
    for mode in ("softmax", "gumbel_softmax"):
        torch.testing.assert_close(select_routes(logits, mode, 0.5, noise=False), (logits / 0.5).softmax(-1))


def test_bernoulli_routes_are_normalised_sigmoids_also_without_ablated_experts():
    ablated = torch.tensor([[[1.0, 0.0, -torch.inf]]])
    weights = torch.tensor([1 / (1 + math.exp(-2)), 0.5, 0.0])
    torch.testing.assert_close(
        select_routes(ablated, "bernoulli", 0.5, noise=False)[0, 0], weights / weights.sum()
    )
    # the sigmoids themselves are 0
    far = select_routes(torch.full((1, 1, 2), -1e4), "bernoulli", 0.1, noise=False)
    torch.testing.assert_close(far, torch.full((1, 1, 2), 0.5))


def test_bernoulli_draws_are_relaxed_bernoulli_variables():
    logits = torch.tensor([[[1.0, 0.0, -1.0]]]).expand(10_000, 1, 3)
    torch.manual_seed(5)
    uniform = torch.rand_like(logits)
    drawn = torch.sigmoid((logits + uniform.log() - (1 - uniform).log()) / 0.7)
    torch.manual_seed(5)
    routes = select_routes(logits, "bernoulli", 0.7)
    torch.testing.assert_close(routes, drawn / drawn.sum(-1, keepdim=True), rtol=1e-4, atol=1e-5)
    # Near temperature 0 each expert is on or off on its own.
    on_E, cold = torch.sigmoid(logits[0, 0]), select_routes(logits, "bernoulli", 1e-3)
    first_two = (cold[:, 0] - torch.tensor([0.5, 0.5, 0.0])).abs().amax(-1) < 0.01
    torch.testing.assert_close(first_two.float().mean(), on_E[0] * on_E[1] * (1 - on_E[2]), atol=0.02, rtol=0)


def test_exploration_replaces_its_share_of_rows_by_uniform_one_hots_and_keeps_the_rest():
    soft = torch.full((10_000, 2, 4), 0.25, requires_grad=True)
    explored = explore(soft, 0.3)
    replaced = (explored != 0.25).any(-1)
    assert replaced.float().mean().item() == pytest.approx(0.3, abs=0.02)
    chosen = explored[replaced]
    assert (chosen.sum(-1) == 1).all()
    torch.testing.assert_close(chosen.mean(0), torch.full((4,), 0.25), atol=0.03, rtol=0)
    explored.sum().backward()  # not in place; replaced rows pass no gradient
    assert torch.equal(soft.grad[..., 0] == 0, replaced)
    assert torch.equal(explore(soft, 0.0), soft)


# ---- distributions


def test_the_route_of_a_task_that_was_never_trained_is_a_warning(make_model):
    model = make_model(random_vectors=["d"], trained_tasks=["a", "c"])
    with pytest.warns(UserWarning, match="never trained, .*: b; trained tasks: a, c"):
        model.task_ids(["a", "b"])
    with warnings.catch_warnings(action="error"):
        model.task_ids(["a", "c"])


@every_source
def test_rows_sum_to_one_and_the_same_seed_gives_the_same_draw(source, fields, make_model):
    model = make_source(make_model, source, **fields).train()
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append(model.draw_routes(TASK_IDS))
    assert draws[0].shape == (4, L, E)
    torch.testing.assert_close(draws[0].sum(-1), torch.ones(4, L, dtype=torch.float64))
    assert torch.equal(*draws)


@pytest.mark.parametrize(("source", "fields"), SOURCES[6:] + SOURCES[:1])
def test_noise_free_routes_depend_on_the_task_only(source, fields, make_model):
    routes = make_source(make_model, source, **fields).train().draw_routes(torch.tensor([2] * 5 + [1]))
    constant = all(torch.equal(routes[0], route) for route in routes[:5])
    assert constant == (source != "random")


def test_random_routes_are_independent_uniform_one_hots_per_example_and_layer(make_model):
    model = make_source(make_model, "random")
    routes = model.draw_routes(torch.zeros(10_000, dtype=torch.long))
    assert model.has_plain_equivalent(routes)
    for layer in range(L):
        assert_draws_follow(routes[:, layer].sum(0).numpy(), [1 / 3] * 3)
    # Two layers are independent: all nine pairs of experts are equally frequent.
    pairs = torch.einsum("be,bf->ef", routes[:, 0], routes[:, 3]).flatten().numpy()
    assert_draws_follow(pairs, [1 / 9] * 9)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_task_level_random_routes_are_n_different_experts_drawn_uniformly(n):
    routes = random_task_routes(10_000, 2, E, n=n, seed=5)
    assert torch.equal(routes.unique(), torch.tensor([0, 1 / n] if n < E else [1 / n]))
    assert ((routes > 0).sum(-1) == n).all()
    for layer in range(2):
        sets, counts = (routes[:, layer] > 0).unique(dim=0, return_counts=True)
        possible = {1: 3, 2: 3, 3: 1}[n]
        assert len(sets) == possible
        assert_draws_follow(counts.numpy(), [1 / possible] * possible)
    assert torch.equal(routes, random_task_routes(10_000, 2, E, n=n, seed=5))
    if n < E:
        assert not torch.equal(routes, random_task_routes(10_000, 2, E, n=n, seed=6))


@pytest.mark.parametrize("mode", ["gumbel_softmax", "gumbel_softmax_st"])
def test_sampled_choices_follow_the_softmax_of_the_logits_at_any_temperature(mode, make_model):
    model = make_source(make_model, "learned", router_mode=mode, router_temperature=0.4).train()
    with torch.no_grad():
        model.router.units[1].output.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
        routes = model.draw_routes(torch.zeros(10_000, dtype=torch.long))[:, 1]
        expected = model.router_logits(torch.tensor([0]))[0, 1].softmax(-1)
    assert_draws_follow(torch.bincount(routes.argmax(-1), minlength=E).numpy(), expected)


# ---- cases in which sources agree


@pytest.mark.parametrize("k", [1, 2])
def test_top_k_routes_are_the_softmax_over_the_largest_logits_row_by_row(k):
    logits = torch.randn(6, L, E, dtype=torch.float64, requires_grad=True)
    routes = select_routes(logits, "top_k", 0.7, top_k=k)
    weights = torch.randn(6, L, E, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((routes * weights).sum(), logits)
    for n in range(6):
        for layer in range(L):  # reference: remove the small logits, then softmax
            row = logits[n, layer].detach().clone().requires_grad_()
            kept = sorted(range(E), key=lambda e, row=row: -row[e].item())[:k]
            exponentials = {e: torch.exp(row[e] / 0.7) for e in kept}
            total = sum(exponentials.values())
            weights_E = [exponentials[e] / total if e in kept else row.new_zeros(()) for e in range(E)]
            expected = torch.stack(weights_E)
            torch.testing.assert_close(routes[n, layer], expected)
            slow = torch.autograd.grad((expected * weights[n, layer]).sum(), row)[0]
            torch.testing.assert_close(gradient[n, layer], slow)


# ---- training


def test_a_trained_model_can_change_its_route_source(make_model, batch):
    model = make_model(router_mode="softmax")
    model.use_routes("average")
    average = model(**batch, task_ids=TASK_IDS).loss
    uniform = torch.full((4, L, E), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(average, model(**batch, routes=uniform).loss)
    routes = random_task_routes(4, L, E, n=1, seed=0)
    model.use_routes("fixed", routes)
    assert torch.equal(model.routes_for(["c"])[0], routes[2].double())
    model.use_routes("random")
    assert not hasattr(model, "task_routes")
    with pytest.raises(ValueError, match=r"shape \(N, L, E\) = \(4, 4, 3\)"):
        model.use_routes("fixed", routes[:2])


# ---- one expert


def test_one_expert_has_plain_barts_loss_and_gradients_bit_for_bit(batch):
    torch.manual_seed(0)
    bart = BartForConditionalGeneration(tiny_bart_config(dropout=0.1)).double()
    model = RoutingBartForConditionalGeneration.from_bart(bart, num_experts=1, init_eps=0.5, task_names=TASKS)
    model = model.double()
    assert model.router is None
    found = []
    for which in (model, bart):
        which.train().zero_grad()
        torch.manual_seed(1)  # the same dropout
        inputs = {k: v for k, v in batch.items() if k != "labels"}
        if which is model:
            loss = model(**batch, task_ids=TASK_IDS).loss
        else:
            decoder_input_ids = bart.prepare_decoder_input_ids_from_labels(batch["labels"])
            logits = bart(**inputs, decoder_input_ids=decoder_input_ids, use_cache=False).logits
            real = batch["labels"] != -100
            smoothed = torch.nn.CrossEntropyLoss(reduction="sum", label_smoothing=0.1)
            loss = smoothed(logits[real], batch["labels"][real])
        loss.backward()
        gradients = {n.replace(".experts.0.", "."): p.grad for n, p in which.named_parameters()}
        found.append((loss.detach(), gradients))
    (loss, ours), (plain_loss, theirs) = found
    assert torch.equal(loss, plain_loss)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
