"""The load-balancing loss: its value and its gradient against loops."""

import pytest
import torch
from tiny_steps import recorded

from routing_moe.optim.step import load_imbalance, part_of


def slow_load_imbalance(routes_BLE: torch.Tensor) -> torch.Tensor:
    """Equations 4 to 6 of the Switch Transformers paper, number by number, summed over layers."""
    B, L, E = routes_BLE.shape
    total = 0
    for layer in range(L):
        chosen = [int(routes_BLE[b, layer].argmax()) for b in range(B)]
        for expert in range(E):
            mean_weight = sum(routes_BLE[b, layer, expert] for b in range(B)) / B
            total += E * (chosen.count(expert) / B) * mean_weight
    return total


def test_load_imbalance_equals_loops_and_is_least_for_equal_loads():
    routes_BLE = torch.randn(7, 3, 4, dtype=torch.float64).softmax(-1)
    assert float(load_imbalance(routes_BLE)) == pytest.approx(float(slow_load_imbalance(routes_BLE)))
    assert float(load_imbalance(torch.eye(4)[:, None].expand(4, 3, 4))) == 3  # each example its own expert
    assert float(load_imbalance(torch.eye(4)[:1, None].expand(7, 3, 4))) == 3 * 4  # all the same expert


@pytest.mark.parametrize("mode", ["softmax", "gumbel_softmax_st"])
def test_load_balance_adds_the_gradient_of_its_definition_to_router_and_task_vectors(make_stepper, mode):
    plain, balanced, weight = [], [], 0.3
    fields = dict(router_mode=mode, bart_fields=dict(encoder_layers=2), encoder_vanilla_layers=[0])
    recorded(make_stepper(**fields), plain).step(0)
    recorded(make_stepper({"load_balance": weight}, **fields), balanced).step(0)
    reference = make_stepper(**fields)
    routes_BLE = routes_of_step(reference, 0)[:, 1:]  # without the vanilla layer
    (weight * len(routes_BLE) * slow_load_imbalance(routes_BLE)).backward()
    changed = set()
    for name, p in reference.model.named_parameters():
        expected = torch.zeros_like(p) if p.grad is None else p.grad
        torch.testing.assert_close(balanced[0][name] - plain[0][name], expected, rtol=1e-7, atol=1e-9)
        if expected.any():
            changed.add(part_of(name))
    assert changed == {"router", "vectors"}


def routes_of_step(stepper, step: int) -> torch.Tensor:
    """Returns the routes that a step draws, with their graph."""
    drawn = []
    draw_routes = stepper.model.draw_routes
    stepper.model.draw_routes = lambda task_ids: drawn.append(draw_routes(task_ids)) or drawn[-1].detach()
    stepper.optimizer.step = lambda: None
    stepper.step(step)
    return drawn[0]
