"""An optimizer step on the emulated device equals that of the CPU, for every source of routes and router."""

import pytest
import torch
from emulated_device import DEVICE, NEEDS_DEVICE, on_device
from tiny_steps import parameters

from routing_moe.config.choices import ROUTER_MODES, ROUTER_NETWORKS
from routing_moe.model.route_sources import random_task_routes

pytestmark = NEEDS_DEVICE

SOFTMAX = dict(router_mode="softmax")
SOURCES = {
    **{mode: dict(router_mode=mode) for mode in ROUTER_MODES},
    "average": dict(route_source="average"),
    "random": dict(route_source="random"),
    "random per task": dict(route_source="fixed"),
    "one expert": dict(num_experts=1),
    "merged parameters": SOFTMAX | dict(expert_mixing="parameters"),
}
LAYERS = dict(encoder_layers=1, decoder_layers=1)
SETTINGS = dict(max_tokens_per_micro_batch=60, max_grad_norm=0.1, load_balance=0.1, expert_regularization=0.1)


def one_step(make_stepper, settings: dict, fields: dict):
    """Returns the report of a step in several micro-batches, the parameters after it, and their device."""
    stepper = make_stepper(settings, bart_fields=LAYERS, **fields)
    if stepper.model.config.route_source == "fixed":
        stepper.model.use_routes("fixed", random_task_routes(4, 2, 3, n=1, seed=0))
    assert len(stepper.split(0)[2]) > 1
    return stepper.step(0), parameters(stepper), str(stepper.model.device)


def assert_equal_to_the_cpu(make_stepper, settings: dict, fields: dict) -> None:
    report, after, device = on_device(one_step, make_stepper, settings, fields)
    expected_report, expected_after, _ = one_step(make_stepper, settings, fields)
    assert device == DEVICE
    assert report == pytest.approx(expected_report, rel=1e-9)
    torch.testing.assert_close(after, expected_after, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("source", SOURCES)
def test_a_step_with_every_source_of_routes(make_stepper, source):
    assert_equal_to_the_cpu(make_stepper, SETTINGS, SOURCES[source])


@pytest.mark.parametrize("router", ROUTER_NETWORKS)
def test_a_step_with_every_router(make_stepper, router):
    settings = dict(train_batch_size=2, max_tokens_per_micro_batch=1)
    assert_equal_to_the_cpu(make_stepper, settings, SOFTMAX | dict(router_nn_type=router))
