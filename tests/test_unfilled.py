"""Models built without drawing the weights that are loaded equal those built with it, bit for bit."""

import pytest
import torch
from conftest import tiny_bart_config
from tiny_runs import assert_equal
from transformers import BartForConditionalGeneration

from routing_moe import RoutingBartConfig, RoutingBartForConditionalGeneration
from routing_moe.model import conversion, unfilled
from routing_moe.model.conversion import with_fresh_experts
from routing_moe.model.routers import ROUTERS

MODELS = {name: dict(router_nn_type=name) for name in ROUTERS} | {
    "average": dict(route_source="average"),
    "fixed": dict(route_source="fixed"),
    "vanilla layers": dict(encoder_vanilla_layers=[0], decoder_vanilla_layers=[1]),
    "one expert": dict(num_experts=1),
}
FIELDS = dict(task_names=["a", "b"], router_input_dim=12, router_hidden_dim=8)


def drawing_everything(cls, config):
    """The specification of `unfilled_model`, which does it faster."""
    return cls(config)


def both_ways(make, monkeypatch) -> list[tuple[dict, torch.Tensor, torch.Tensor]]:
    """Returns (weights, a number drawn after them, the generator's state) of `make()`, slow and fast."""
    found = []
    for build in (drawing_everything, unfilled.unfilled_model):
        monkeypatch.setattr(conversion, "unfilled_model", build)
        torch.manual_seed(3)
        torch.randn(5)  # leaves a normal number in the generator's state
        found.append((make().state_dict(), torch.rand(1), torch.get_rng_state()))
    return found


def assert_same(found) -> None:
    slow, fast = found
    assert_equal(fast[0], slow[0])
    assert torch.equal(fast[1], slow[1])
    assert torch.equal(fast[2], slow[2])


def from_bart(num_experts=3, **fields):
    bart = BartForConditionalGeneration(tiny_bart_config())
    fields = FIELDS | fields
    return RoutingBartForConditionalGeneration.from_bart(bart, num_experts, init_eps=0.1, **fields)


@pytest.mark.parametrize("name", MODELS)
def test_weights_noise_and_later_draws_are_those_of_a_model_that_drew_everything(name, monkeypatch):
    config = RoutingBartConfig(**tiny_bart_config().to_dict(), **({"num_experts": 3} | FIELDS | MODELS[name]))
    with unfilled.SkippedDraws() as skipped:
        RoutingBartForConditionalGeneration(config)
    assert skipped.is_counted  # so the fast way is tested
    assert_same(both_ways(lambda: from_bart(**MODELS[name]), monkeypatch))


def test_new_experts_along_kept_routes_are_the_same(monkeypatch):
    def make():
        return with_fresh_experts(from_bart(), BartForConditionalGeneration(tiny_bart_config()), 0.1)

    assert_same(both_ways(make, monkeypatch))


def test_weights_of_a_bart_are_skipped(monkeypatch):
    config, advances = from_bart(route_source="average").config, []
    monkeypatch.setattr(unfilled, "advance", advances.append)
    with unfilled.SkippedDraws() as drawn:
        model = unfilled.unfilled_model(RoutingBartForConditionalGeneration, config)
    assert drawn.draws == 0
    assert advances[0] > sum(p.numel() for p in model.parameters())


def test_draws_that_cannot_be_counted_are_made(monkeypatch):
    # Fewer than 16 normal numbers are drawn in pairs, and float64 takes twice the words.
    assert_same(both_ways(lambda: from_bart(task_names=["a"]), monkeypatch))
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        assert_same(both_ways(from_bart, monkeypatch))
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(
    ("before", "n"),
    [(0, 1), (1, 623), (624, 1247), (5, 2**18), (5, 2**19 + 3)],
)
def test_the_generator_is_in_the_state_after_n_draws(before, n):
    torch.manual_seed(before)
    torch.randn(1)
    torch.rand(before)
    start = torch.get_rng_state()
    torch.rand(n)
    expected = torch.get_rng_state()
    torch.set_rng_state(start)
    unfilled.advance(n)
    assert torch.equal(torch.get_rng_state(), expected)
