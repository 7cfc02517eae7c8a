"""Parameters and FLOPs from the configuration, compared with real models and torch's counter."""

import pytest
from conftest import tiny_bart_config
from tiny_steps import merged_one_by_one
from torch.utils.flop_counter import FlopCounterMode
from transformers import BartForConditionalGeneration

from routing_moe.model.base import train_base
from routing_moe.model.flops import (
    Work,
    active_parameters,
    example_flops,
    experts_used,
    merging_flops,
    router_flops,
    total_parameters,
)
from routing_moe.model.route_sources import random_task_routes
from routing_moe.model.routed_layer import RoutedLayer
from routing_moe.model.routers import ROUTERS
from routing_moe.optim.step import Stepper, frozen_parts
from routing_moe.training.cost import flops_of_steps

ROUTINGS = {
    "plain": dict(num_experts=1),
    "softmax": dict(router_mode="softmax"),
    "gumbel": dict(router_mode="gumbel_softmax"),
    "straight_through": dict(),
    "top_k": dict(router_mode="top_k", router_top_k=2),
    "average": dict(route_source="average"),
    "random": dict(route_source="random"),
    "task_random": dict(route_source="fixed"),
    "merged": dict(router_mode="softmax", expert_mixing="parameters"),
    "table": dict(router_nn_type="table", router_mode="softmax"),
    "merged_table": dict(router_nn_type="table", router_mode="softmax", expert_mixing="parameters"),
    "lora": dict(expert_kind="lora", lora_rank=2, num_experts=4),
    "lora_softmax": dict(expert_kind="lora", lora_rank=2, router_mode="softmax", lora_targets="attention"),
    "lora_top_1": dict(expert_kind="lora", lora_rank=2, num_experts=4, router_mode="top_k", router_top_k=1),
    "lora_factors": dict(expert_kind="lora", lora_rank=2, router_mode="softmax", lora_mixing="factors"),
    "lora_splits": dict(
        expert_kind="lora",
        lora_rank=2,
        lora_mixing="factors",
        lora_splits=2,
        router_mode="bernoulli",
        router_nn_type="table",
    ),
    "lora_one": dict(expert_kind="lora", lora_rank=2, num_experts=1, lora_targets="feed_forward"),
    "lora_vanilla_layers": dict(expert_kind="lora", lora_rank=2, encoder_vanilla_layers=[0]),
    "vanilla_layers": dict(encoder_vanilla_layers=[0], decoder_vanilla_layers=[1], num_experts=4),
}


FEW_EXAMPLES = dict(train_batch_size=3, max_tokens_per_micro_batch=25)


def counted(stepper, step=0) -> int:
    """Returns the FLOPs of a step by torch's counter, with eager attention, as it omits fused kernels."""
    stepper.model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        stepper.step(step)
    return counter.get_total_flops()


def prepared(make_stepper, fields, settings=None, frozen=()):
    """Returns a stepper with several micro-batches and frozen parameters (prefixes of their names)."""
    stepper = make_stepper(FEW_EXAMPLES | (settings or {}), **fields)
    if fields.get("route_source") == "fixed":
        stepper.model.use_routes("fixed", random_task_routes(4, 4, 3, n=2, seed=0).double())
    for name, p in stepper.model.named_parameters():
        p.requires_grad_(not name.startswith(frozen))
    return Stepper(stepper.model, stepper.examples, stepper.settings, stepper.accelerator)


@pytest.fixture
def matrix_products_only(monkeypatch):
    """Sets merging to 0 FLOPs, and makes it elementwise, so that the counter omits it."""
    monkeypatch.setattr("routing_moe.model.flops.merging_flops", lambda config, work: 0)
    monkeypatch.setattr(RoutedLayer, "merged_parameters", merged_one_by_one)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_a_step_has_the_flops_that_torch_counts(make_stepper, matrix_products_only, routing):
    stepper = prepared(make_stepper, ROUTINGS[routing])
    assert len(stepper.split(0)[2]) > 1
    assert flops_of_steps(stepper, [0], Work.of(stepper.model))[0] == counted(stepper)


ROUTER, VECTORS, EMBEDDINGS = (
    "router.",
    "task_vectors.",
    ("model.shared", "model.encoder.embed", "model.decoder.embed"),
)


@pytest.mark.parametrize(
    ("routing", "frozen"),
    [
        ("straight_through", (ROUTER, VECTORS)),  # runs selected experts only
        ("straight_through", (ROUTER,)),
        ("straight_through", (VECTORS,)),
        ("softmax", (ROUTER, VECTORS)),
        ("merged", (ROUTER, VECTORS)),
        ("softmax", (ROUTER, "model.", "final")),  # nothing but the vectors is trained
        ("table", ("model.",)),
        ("merged_table", ("model.",)),
        ("plain", EMBEDDINGS),
        ("softmax", (*EMBEDDINGS, "model.encoder.layernorm", "model.decoder.layernorm")),
        ("lora", "base"),
        ("lora_softmax", "base"),
        ("lora_top_1", "base"),
        ("lora_factors", "base"),
        ("lora_one", "base"),
        ("lora_vanilla_layers", "base"),
        ("lora_softmax", (ROUTER, VECTORS)),
        ("lora_factors", ("model.",)),
    ],
)
def test_frozen_parts_cost_what_torch_counts(make_stepper, matrix_products_only, routing, frozen):
    stepper = prepared(make_stepper, ROUTINGS[routing], frozen=() if frozen == "base" else frozen)
    if frozen == "base":
        train_base(stepper.model, False)
        stepper = Stepper(stepper.model, stepper.examples, stepper.settings, stepper.accelerator)
    assert flops_of_steps(stepper, [0], Work.of(stepper.model))[0] == counted(stepper)


@pytest.mark.parametrize("routing", ["straight_through", "merged"])
def test_alternating_updates_cost_what_torch_counts(make_stepper, matrix_products_only, routing):
    stepper = prepared(make_stepper, ROUTINGS[routing], {"alternate_every": 1})
    work = Work.of(stepper.model)
    costs = [flops_of_steps(stepper, [step], work.without(frozen_parts(step, 1)))[0] for step in (0, 1)]
    assert costs == [counted(stepper, step) for step in (0, 1)]


@pytest.mark.parametrize("router", ROUTERS)
def test_every_router_costs_what_torch_counts(make_model, router):
    model = make_model(router_nn_type=router).train()
    with FlopCounterMode(display=False) as counter:
        model.router_logits(model.task_ids(["a", "b"])).sum().backward()
    assert 2 * router_flops(model.config, Work.of(model)) == counter.get_total_flops()


def test_explored_rows_run_one_expert_and_the_others_forward_only(make_stepper):
    stepper = prepared(make_stepper, dict(router_mode="softmax", exploration_epsilon=1.0))
    assert flops_of_steps(stepper, [0], Work.of(stepper.model))[0] == counted(stepper)


def test_straight_through_costs_one_expert_and_the_forward_pass_of_the_others(make_model):
    """(E + 2) / 3 in the layers: one expert forward and backward, E - 1 forward."""
    models = {E: make_model(num_experts=E) for E in (1, 4)}
    plain, mixture = (example_flops(m.config, Work.of(m), 9, 5, 0) for m in models.values())
    assert mixture / plain == pytest.approx((4 + 2) / 3)


def test_parameters_and_merging_of_a_layer_equal_hand_computed_ones(make_model):
    D, F, V, P = 16, 24, 60, 42
    attention, ffn = 4 * (D * D + D), 2 * D * F + D + F
    layer = {"encoder": attention + ffn + 4 * D, "decoder": 2 * attention + ffn + 6 * D}
    layers = 2 * (layer["encoder"] + layer["decoder"])
    config = make_model(router_mode="softmax", expert_mixing="parameters").config
    assert active_parameters(config, 1) == D * (V + 2 * P + 4) + layers
    assert active_parameters(config, 3) == D * (V + 2 * P + 4) + 3 * layers
    # forward 2 * 3, experts' gradients 3, weights' gradients 2 * 3 per parameter
    assert merging_flops(config, Work()) == 15 * layers


@pytest.mark.parametrize("routing", ROUTINGS)
def test_parameters_are_those_of_the_model(make_model, routing):
    model = make_model(**ROUTINGS[routing])
    assert total_parameters(model.config) == sum(p.numel() for p in model.parameters())


def test_a_plain_bart_configuration_is_accepted():
    bart = BartForConditionalGeneration(tiny_bart_config())
    assert total_parameters(bart.config) == active_parameters(bart.config, 1) == bart.num_parameters()
    assert example_flops(bart.config, Work(), 9, 5, 5) > 0


def test_experts_of_a_route_by_its_source(make_model):
    used = {name: experts_used(make_model(**fields).config, 2) for name, fields in ROUTINGS.items()}
    assert used == dict(plain=1, softmax=3, gumbel=3, straight_through=1, top_k=2, average=3, random=1,
                        task_random=2, merged=1, vanilla_layers=1, table=3, merged_table=1, lora=1,
                        lora_softmax=3, lora_top_1=1, lora_factors=3, lora_splits=3, lora_one=1,
                        lora_vanilla_layers=1)  # fmt: skip
    with pytest.raises(ValueError, match="not part of the configuration"):
        experts_used(make_model(route_source="fixed").config)
