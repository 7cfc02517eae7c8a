"""FLOPs counted on the meta device, compared with hand-computed numbers, formulas and real steps."""

import numpy as np
import pytest
import torch
from tiny_backbones import make_routed
from torch.utils.flop_counter import FlopCounterMode

from routing_moe.model.base import train_base
from routing_moe.model.counted_flops import active_parameters, example_flops, rows_flops
from routing_moe.model.route_sources import random_task_routes
from routing_moe.optim.step import Stepper
from routing_moe.training.cost import training_cost

LENGTHS = np.array([[30, 6], [12, 6], [7, 1]])  # S, T and K of two examples
ONE_LAYER = dict(encoder_layers=1, decoder_layers=1)
LORA = dict(expert_kind="lora", lora_rank=2)
SPLITS = dict(lora_mixing="factors", lora_splits=2, router_mode="bernoulli", router_nn_type="table")
# {name: (fields, FLOPs of the two examples, active parameters)}, by the formulas of 19f1e55
ROUTINGS = {
    "straight_through": ({}, [1457280, 316800], 7408),
    "top_k": (dict(router_mode="top_k", router_top_k=2), [1740672, 379008], 12448),
    "task_random": (dict(route_source="fixed"), [1740672, 379008], 12448),
    "merged": (dict(router_mode="softmax", expert_mixing="parameters"), [890496, 192384], 7408),
    "lora": (LORA | dict(num_experts=4), [1438848, 349056], 8496),
    "lora_splits": (LORA | SPLITS, [1047168, 251136], 10672),
    "vanilla_layers": (
        dict(encoder_vanilla_layers=[0], decoder_vanilla_layers=[1], num_experts=4, bart_fields={}),
        [2590848, 565632],
        12448,
    ),
}  # fmt: skip
FEW_EXAMPLES = dict(train_batch_size=3, max_tokens_per_micro_batch=25)


def routed(make_model, fields):
    """Returns a model in training mode and a route."""
    model = make_model(**(dict(router_hidden_dim=64, bart_fields=ONE_LAYER) | fields)).train()
    if fields.get("route_source") == "fixed":
        model.use_routes("fixed", random_task_routes(*model.task_routes.shape, n=2, seed=0))
    return model, drawn(model)


def drawn(model) -> torch.Tensor:
    """Returns the routes of a training step, as the model gets them."""
    routes_BLE = model.draw_routes(torch.tensor([0]))
    return routes_BLE.detach().requires_grad_(routes_BLE.requires_grad)


def counted(run) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def test_flops_of_a_plain_bart_equal_hand_computed_ones(make_model, monkeypatch):
    D, F, V = 16, 24, 60
    S, T, K = 9, 5, 4
    attention = lambda queries, keys: 2 * D * D * (2 * queries + 2 * keys) + 4 * D * queries * keys  # noqa: E731
    encoder = attention(S, S) + 4 * D * F * S
    decoder = attention(T, T) + attention(T, S) + 4 * D * F * T
    forward = encoder + decoder + 2 * D * V * K
    model, routes_BLE = routed(make_model, dict(num_experts=1))
    # A product for each of two gradients.
    assert example_flops(model, [[S], [T], [K]], routes_BLE) == 3 * forward
    with torch.no_grad():
        assert example_flops(model, [[S], [T], [K]], routes_BLE) == forward
    monkeypatch.setattr("routing_moe.model.counted_flops._known", {})
    assert example_flops(model.half(), [[S], [T], [K]], routes_BLE) == 3 * forward
    assert active_parameters(model, routes_BLE) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("routing", ROUTINGS)
def test_flops_and_active_parameters_equal_those_of_formulas(make_model, routing):
    fields, flops, active = ROUTINGS[routing]
    model, routes_BLE = routed(make_model, fields)
    assert example_flops(model, LENGTHS, routes_BLE) == pytest.approx(flops, rel=1e-12)
    assert active_parameters(model, routes_BLE) == active


@pytest.mark.parametrize(
    ("fields", "frozen"),
    [({}, ()), (dict(router_mode="softmax"), ("router.", "model.", "final")), (LORA | SPLITS, "base")],
    ids=["straight-through", "softmax", "low-rank"],
)
def test_a_step_has_the_flops_that_torch_counts(make_stepper, fields, frozen):
    stepper = make_stepper(FEW_EXAMPLES, **fields)
    for name, p in stepper.model.named_parameters():
        p.requires_grad_(frozen == "base" or not name.startswith(frozen))
    if frozen == "base":
        train_base(stepper.model, False)
    stepper = Stepper(stepper.model, stepper.examples, stepper.settings, stepper.accelerator)
    assert len(stepper.split(0)[2]) > 1
    cost = training_cost(stepper, 1)["total_flops"]
    stepper.model.set_attn_implementation("eager")  # the counter omits fused kernels
    assert cost == counted(lambda: stepper.step(0))


def test_explored_rows_run_one_expert_with_a_gradient(make_stepper):
    explored = dict(router_mode="softmax", exploration_epsilon=1.0)
    stepper, one_hot = (make_stepper(FEW_EXAMPLES, **fields) for fields in (explored, {}))
    assert training_cost(stepper, 1)["total_flops"] == training_cost(one_hot, 1)["total_flops"]


@pytest.mark.parametrize("family", ["flan-t5", "llama"])
def test_other_backbones_have_the_flops_that_torch_counts(family):
    model = make_routed(family, dtype=torch.float32).train()
    routes_BLE, S = drawn(model), 9
    T, K = (5, 3) if model.config.is_encoder_decoder else (S, 3)
    labels = torch.full((1, T), -100).index_fill(1, torch.arange(T - K, T), 5)
    inputs = dict(input_ids=torch.full((1, S), 5), attention_mask=torch.ones(1, S, dtype=torch.long))
    own = example_flops(model, [[S], [T], [K]], routes_BLE)
    model.set_attn_implementation("eager")
    leaf_BLE = routes_BLE.detach().requires_grad_()
    assert own == counted(lambda: model(**inputs, labels=labels, routes=leaf_BLE).loss.backward())


def test_rows_cost_a_forward_pass_of_the_plain_model(make_model, make_stepper):
    examples = make_stepper().examples
    S, T = examples.source_lengths_N, examples.target_lengths_N
    plain, _ = routed(make_model, dict(num_experts=1))
    with torch.no_grad():
        expected = example_flops(plain, [S, T, T], torch.ones(1, 2, 1)).sum()
    for fields in ({}, LORA):
        assert rows_flops(routed(make_model, fields)[0], examples) == expected
    model = make_routed("llama", dtype=torch.float32)
    plain = model.to_plain(model.routes_for(["a"])[0])
    plain.set_attn_implementation("eager")
    with torch.no_grad():
        one = counted(lambda: plain(torch.ones(1, 7, dtype=torch.long)))
        assert example_flops(plain, [[7], [0], [0]]) == one
