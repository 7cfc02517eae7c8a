"""Optimizer steps on the emulated device: equal to those of the CPU, for every source of routes."""

import pytest
import torch
from emulated_device import DEVICE, NEEDS_DEVICE, counting, on_device
from tiny_steps import parameters

from routing_moe.config.choices import ROUTER_TYPES

pytestmark = NEEDS_DEVICE

SOFTMAX = dict(router_mode="softmax")
KINDS = {
    "straight-through": dict(router_mode="gumbel_softmax_st"),
    "gumbel": dict(router_mode="gumbel_softmax"),
    "softmax": SOFTMAX,
    "top_k": dict(router_mode="top_k", router_top_k=2),
    "average": dict(route_source="average"),
    "random": dict(route_source="random"),
    "fixed": dict(route_source="fixed"),
    "one expert": dict(num_experts=1),
    "merged": SOFTMAX | dict(expert_mixing="parameters"),
}


def two_steps(make_stepper, fields):
    stepper = make_stepper(dict(max_tokens_per_micro_batch=40), **fields)
    print(stepper.model.device)
    return [stepper.step(step) for step in (0, 1)], parameters(stepper)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_equal_those_of_the_cpu(make_stepper, kind):
    reports, after = on_device(two_steps, make_stepper, KINDS[kind])
    cpu_reports, cpu_after = two_steps(make_stepper, KINDS[kind])
    assert reports == cpu_reports
    torch.testing.assert_close(after, cpu_after, rtol=0, atol=0)
