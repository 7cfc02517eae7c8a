"""Selection modes, exploration and schedules."""

import math

import pytest
import torch

from routing_moe.model.selection import explore, noise_free_routes, select_routes

LOGITS = torch.tensor([[[1.0, 0.0, -1.0]]]).expand(10_000, 1, 3)


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
    torch.testing.assert_close(
        select_routes(logits, "softmax", 300), torch.full((6, 4, 3), 1 / 3), atol=5e-3, rtol=0
    )
    hard = noise_free_routes(logits, "gumbel_softmax_st", 0.5)
    assert torch.equal(hard.argmax(-1), logits.argmax(-1))
    assert hard.unique().tolist() == [0.0, 1.0]
    for mode in ("softmax", "gumbel_softmax"):
        torch.testing.assert_close(noise_free_routes(logits, mode, 0.5), (logits / 0.5).softmax(-1))


def test_bernoulli_routes_are_normalised_sigmoids_also_without_ablated_experts():
    ablated = torch.tensor([[[1.0, 0.0, -torch.inf]]])
    weights = torch.tensor([1 / (1 + math.exp(-2)), 0.5, 0.0])
    torch.testing.assert_close(noise_free_routes(ablated, "bernoulli", 0.5)[0, 0], weights / weights.sum())
    far = noise_free_routes(torch.full((1, 1, 2), -1e4), "bernoulli", 0.1)  # the sigmoids themselves are 0
    torch.testing.assert_close(far, torch.full((1, 1, 2), 0.5))


def test_bernoulli_draws_are_relaxed_bernoulli_variables():
    torch.manual_seed(5)
    uniform = torch.rand_like(LOGITS)
    drawn = torch.sigmoid((LOGITS + uniform.log() - (1 - uniform).log()) / 0.7)
    torch.manual_seed(5)
    routes = select_routes(LOGITS, "bernoulli", 0.7)
    torch.testing.assert_close(routes, drawn / drawn.sum(-1, keepdim=True), rtol=1e-4, atol=1e-5)
    # Near temperature 0 each expert is on or off on its own.
    on_E, cold = torch.sigmoid(LOGITS[0, 0]), select_routes(LOGITS, "bernoulli", 1e-3)
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
