"""Feed-forward layers of copied units: the same function at first, and a BART as any other afterwards."""

import json

import pytest
import torch
from conftest import tiny_bart_config
from tiny_grids import ONE_EXPERT, QUICK
from tiny_runs import NO_LEARNING, assert_equal, assert_same_run, run, weights
from transformers import BartForConditionalGeneration

from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.cli.export import main as export
from routing_moe.model.flops import Work, example_flops, total_parameters
from routing_moe.model.widening import widened
from routing_moe.results.run_cost import read_cost

pytestmark = pytest.mark.usefixtures("quick_pictures")

DENSE = dict(num_experts=1, taskvecs_dim=None, router_hidden_dim=None, init_eps=None)
WIDE = DENSE | dict(widen_ffn=2)


def of_layers(checkpoint):
    """Returns the weights of the layers of a run of one expert, by their names in a plain BART."""
    return {n.replace(".experts.0", ""): t for n, t in weights(checkpoint).items() if ".layers." in n}


def wide(bart, times=2, num_experts=1, **fields):
    widths = {name: times * getattr(bart.config, name) for name in ("encoder_ffn_dim", "decoder_ffn_dim")}
    return RoutingBartForConditionalGeneration.from_bart(bart, num_experts, 0.0, **widths, **fields)


@pytest.mark.parametrize("fields", [{}, dict(num_experts=3, route_source="average")])
def test_copied_units_are_the_same_function(batch, fields):
    torch.set_default_dtype(torch.float64)
    try:
        bart = BartForConditionalGeneration(tiny_bart_config(init_std=0.3)).eval()
        model = wide(bart, times=3, **fields).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    expected, E = bart(**batch).logits, model.config.num_experts
    routes_BLE = torch.full((4, 4, E), 1 / E, dtype=torch.float64)
    torch.testing.assert_close(model(**batch, routes=routes_BLE).logits, expected, rtol=0, atol=1e-12)
    assert model.single_layers()[0].fc1.weight.shape == (72, 16)


def test_copies_get_different_gradients_whose_sum_is_that_of_the_unit(batch):
    bart = BartForConditionalGeneration(tiny_bart_config(init_std=0.3))
    gradients = []
    for times in (1, 2):
        model = wide(bart, times).train()
        model(**batch).loss.backward()
        gradients.append(model.single_layers()[0].fc1.weight.grad)
    first, second = gradients[1].chunk(2)
    torch.testing.assert_close(first + second, gradients[0], rtol=1e-3, atol=1e-4)
    assert (first - second).norm() > 0.3 * gradients[0].norm()


def test_only_wider_layers_of_a_multiple_are_widened():
    plain = BartForConditionalGeneration(tiny_bart_config()).state_dict()
    config = tiny_bart_config(encoder_ffn_dim=36, decoder_ffn_dim=48)
    changed = {name for name, tensor in widened(plain, config).items() if tensor is not plain[name]}
    assert {name.split(".")[1] for name in changed} == {"decoder"}
    assert {name.split(".", 4)[4] for name in changed} == {"fc1.weight", "fc1.bias", "fc2.weight"}


def test_a_wider_bart_has_the_flops_and_parameters_of_its_products(make_model):
    narrow, model = make_model(1).config, wide(BartForConditionalGeneration(tiny_bart_config()))
    D, F, layers = 16, 24, 4
    assert total_parameters(model.config) - total_parameters(narrow) == layers * (2 * D * F + F)
    assert total_parameters(model.config) == sum(p.numel() for p in model.parameters())
    more = example_flops(model.config, Work(), 9, 5, 5) - example_flops(narrow, Work(), 9, 5, 5)
    assert more == 3 * 2 * (2 * 9 + 2 * 5) * 2 * D * F  # forward and backward: 3; tokens of 2 + 2 layers


# ---- runs


@pytest.fixture(scope="module")
def wide_run(world):
    return world.run("wide", **WIDE)


def test_a_resumed_wide_run_is_that_of_an_uninterrupted_one(world, wide_run):
    assert_same_run(world.resumed("wide stopped", **WIDE), wide_run)


def test_any_start_from_a_bart_can_be_widened(world, wide_run):
    dense = of_layers(world.run("narrow", **ONE_EXPERT) / "last")
    start = ONE_EXPERT | dict(vanilla_checkpoint=world / "narrow", widen_ffn=2, init_eps=0)
    wide = of_layers(world.run("widened", **start) / "last")
    for name in ("model.decoder.layers.0.fc1.weight", "model.encoder.layers.1.fc1.bias"):
        assert torch.equal(wide[name], torch.cat([dense[name]] * 2))
    name = "model.decoder.layers.0.fc2.weight"
    first, second = wide[name].chunk(2, dim=1)
    torch.testing.assert_close(first + second, dense[name])
    assert (first - second).std().item() == pytest.approx(dense[name].std().item() / 2**0.5, rel=0.15)
    again = dict(vanilla_checkpoint=wide_run, widen_ffn=2, init_eps=0) | NO_LEARNING
    experts, trained = weights(world.run("wide experts", **again) / "last"), of_layers(wide_run / "best")
    for e in (0, 1):
        name = f"model.encoder.layers.0.experts.{e}.fc1.weight"
        assert torch.equal(experts[name], trained["model.encoder.layers.0.fc1.weight"])


def test_a_widened_base_of_low_rank_experts_is_saved_with_them(world):
    folder = world.run("wide lora", expert_kind="lora", widen_ffn=2, init_eps=None, total_steps=1)
    assert json.loads((folder / "best/config.json").read_text())["base_model"] is None
    assert "model.shared.weight" in weights(folder / "best")


def test_a_wide_run_is_fine_tuned_and_exported_as_what_it_is(world, grids, wide_run, tmp_path):
    width = 2 * json.loads((world.bart / "config.json").read_text())["encoder_ffn_dim"]
    folder = grids.run("of_wide", checkpoint=wide_run, save_best=True, **QUICK)
    (tuned,) = folder.glob("**/model.safetensors")
    assert weights(tuned.parent)["model.decoder.layers.0.fc2.weight"].shape[1] == width
    assert export(["--checkpoint", str(wide_run), "--output_dir", str(tmp_path / "plain")]) == 0
    bart = BartForConditionalGeneration.from_pretrained(tmp_path / "plain")
    assert_equal(
        {n: t for n, t in bart.state_dict().items() if ".layers." in n}, of_layers(wide_run / "best")
    )


def test_equal_flops_gives_a_wider_bart_fewer_steps(world, wide_run, capsys):
    dense = read_cost(world.run("dense of six", **DENSE))
    capsys.readouterr()
    world.run("asked of wide", equal_flops=world / "dense of six", **WIDE)
    steps = int(capsys.readouterr().out.split()[-1])
    assert steps == dense["total_flops"] * 6 // read_cost(wide_run)["total_flops"] < 6


def test_only_a_new_model_is_widened(world, wide_run, capsys):
    again = WIDE | dict(initialize_from_vanilla=None, checkpoint=wide_run)
    assert run(world.gym, None, world / "no new model", **again) == 2
    assert "--widen_ffn 2 is of a new model: leave --checkpoint out" in capsys.readouterr().err
