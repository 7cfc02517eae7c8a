"""Low-rank experts: exact for every route, equal to plain BARTs with merged weights, and their base."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import one_hot_routes, tiny_bart_config
from tiny_backbones import MIXINGS, make_differ
from tiny_runs import assert_equal
from tiny_steps import parameters
from transformers import BartForConditionalGeneration

from dataloader.errors import InputError
from routing_moe import RoutedModel, RoutingBartConfig, RoutingBartForConditionalGeneration
from routing_moe.finetuning.starting_model import along_route, set_trained
from routing_moe.model.base import is_of_base, refer_to_base
from routing_moe.model.lora import LoraPlan, is_of_expert
from routing_moe.model.mixtures import load_mixture
from routing_moe.task_choice.choice import TaskChoice

LORA = dict(expert_kind="lora", lora_rank=3, lora_alpha=6)


@pytest.fixture
def make_lora(make_model):
    """make_lora(E, **fields) returns a model whose low-rank experts all differ from 0."""

    def make(num_experts=8, **fields):
        model = make_model(num_experts, **(LORA | fields))
        make_differ(model)
        return model

    return make


def routes_of(kind: str, E: int = 8, mixing: str = "products") -> torch.Tensor:
    """Returns routes (4, L, E) of four examples, for one of MIXINGS."""
    L = 4 * MIXINGS[mixing].get("lora_splits", 1)
    logits_BLE = torch.randn(4, L, E, dtype=torch.float64)
    if kind == "one_hot":
        return one_hot_routes(logits_BLE.argmax(-1), E)
    if kind == "two_of_eight":
        return logits_BLE.scatter(-1, logits_BLE.topk(6, largest=False).indices, -torch.inf).softmax(-1)
    if kind == "masked":  # experts are switched off, and weights do not sum to 1
        return logits_BLE.softmax(-1) * (logits_BLE > 0)
    return logits_BLE.softmax(-1)


def slow_bart(model, route_LE) -> BartForConditionalGeneration:
    """Returns the plain BART of a route, its weights computed expert by expert: the specification."""
    config = model.config
    bart = BartForConditionalGeneration(tiny_bart_config()).double().eval()
    state = {name: t for name, t in model.backbone.state_dict().items() if is_of_base(name)}
    for side, first in (("encoder", 0), ("decoder", config.depths[0])):
        for i in range(2):
            for name, linear in model.backbone.get_submodule(f"model.{side}.layers.{i}").named_modules():
                if not hasattr(linear, "lora_A"):
                    continue
                name = f"model.{side}.layers.{i}.{name}.weight"
                update = slow_update(config, linear, route_LE.unflatten(0, (4, -1))[first + i])
                state[name] = state[name] + config.lora_alpha / config.lora_rank * update
    bart.load_state_dict(state)
    return bart


def slow_update(config, linear, weights_HE):
    """Returns the update (D_out, D_in) of a linear map, without its scale."""
    experts = range(config.num_experts)
    if config.lora_mixing == "products":
        return sum(weights_HE[0, e] * linear.lora_B[e].T @ linear.lora_A[e] for e in experts)
    factors = []
    for factor in (linear.lora_A, linear.lora_B):
        D = factor.shape[-1]
        weights_DE = weights_HE[torch.arange(D) * config.lora_splits // D]
        factors.append(sum(weights_DE[:, e] * factor[e] for e in experts))
    return factors[1].T @ factors[0]


@pytest.mark.parametrize(
    ("mixing", "targets"), [("products", "attention"), ("factors", "feed_forward"), ("splits", "all")]
)
def test_mixed_examples_give_the_logits_of_their_plain_barts(make_lora, batch, mixing, targets):
    model = make_lora(lora_targets=targets, **MIXINGS[mixing])
    for kind in ("two_of_eight", "masked"):
        routes_BLE = routes_of(kind, mixing=mixing)
        logits = model(**batch, routes=routes_BLE).logits
        dense = model(**batch, routes=routes_BLE, sparse=False).logits
        for i, route_LE in enumerate(routes_BLE):
            own = {name: tensor[i : i + 1] for name, tensor in batch.items()}
            expected = slow_bart(model, route_LE)(**own).logits[0]
            torch.testing.assert_close(logits[i], expected, rtol=0, atol=1e-12)
            torch.testing.assert_close(dense[i], expected, rtol=0, atol=1e-12)
            plain = model.to_bart(route_LE)(**own).logits[0]
            torch.testing.assert_close(plain, expected, rtol=0, atol=1e-12)


def test_sparse_routes_run_only_the_experts_that_they_use(make_lora):
    plans = {kind: LoraPlan.of(routes_of(kind)) for kind in ("soft", "one_hot", "two_of_eight")}
    assert plans["soft"].chosen_BLK is None
    assert plans["one_hot"].chosen_BLK.shape == (4, 4, 1)
    assert plans["two_of_eight"].chosen_BLK.shape == (4, 4, 2)
    trained = routes_of("one_hot").requires_grad_()
    assert LoraPlan.of(trained).chosen_BLK is None
    assert LoraPlan.of(trained, constant_zeros=True).chosen_BLK.shape == (4, 4, 1)


@pytest.mark.parametrize(("kind", "mixing"), [("one_hot", "products"), ("two_of_eight", "splits")])
def test_sparse_and_dense_plans_give_equal_gradients(make_lora, batch, kind, mixing):
    model, gradients = make_lora(**MIXINGS[mixing]).train(), []
    routes_BLE = routes_of(kind, mixing=mixing)
    for sparse in (True, False):
        model.zero_grad(set_to_none=True)
        leaf_BLE = routes_BLE.clone().requires_grad_()
        model(**batch, routes=leaf_BLE, sparse=sparse, constant_zeros=True).loss.backward()
        own = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        gradients.append(own | {"routes": leaf_BLE.grad * (routes_BLE != 0)})
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-11)


def test_a_single_expert_is_a_bart_with_one_update(make_lora, batch):
    model = make_lora(1)
    expected = slow_bart(model, torch.ones(4, 1, dtype=torch.float64))(**batch).logits
    torch.testing.assert_close(model(**batch).logits, expected, rtol=0, atol=1e-12)
    assert model.expert_distance() == 0
    assert model.relative_expert_distance() is None


def test_distances_of_experts_are_those_of_their_updates(make_lora):
    model = make_lora(3)
    (layer, *_), distances, relative = model.routed_layers(), 0.0, []
    updates = {
        name: [linear.scale * linear.lora_B[e].T @ linear.lora_A[e] for e in range(3)]
        for name, linear in layer.linear_maps.items()
    }
    pairs = [(0, 1), (0, 2), (1, 2)]
    for own in updates.values():
        distances += sum(torch.dist(own[p], own[q]) for p, q in pairs) / 3
    flat = [torch.cat([own[e].flatten() for own in updates.values()]) for e in range(3)]
    for p, q in pairs:
        mean = ((flat[p].square().sum() + flat[q].square().sum()) / 2).sqrt()
        relative.append(torch.dist(flat[p], flat[q]) / mean)
    torch.testing.assert_close(layer.expert_distance(), distances)
    assert layer.relative_expert_distance() == pytest.approx(sum(relative).item() / 3)
    for linear in layer.linear_maps.values():
        for factor in (linear.lora_A, linear.lora_B):
            factor.data[1:] = factor.data[0].clone()
    assert layer.relative_expert_distance() == pytest.approx(0, abs=1e-6)


# ---- training


STEPPED = dict(expert_kind="lora", lora_rank=2)
MHR = dict(router_nn_type="table", router_mode="bernoulli", **MIXINGS["splits"])


def test_a_trained_base_has_a_rate_of_its_own(make_stepper):
    stepper = make_stepper(dict(base_lr=0.001), **STEPPED)
    names = {id(p): name for name, p in stepper.model.named_parameters()}
    for group in stepper.optimizer.param_groups:
        for p in group["params"]:
            name = names[id(p)]
            of_routing = {"router": 0.02, "task_vectors": 0.03}.get(name.split(".")[0])
            assert group["lr"] == of_routing or group["lr"] == (0.01 if is_of_expert(name) else 0.001), name
    before = parameters(stepper)
    for step in range(2):
        stepper.step(step)
    embeddings = stepper.model.get_input_embeddings().weight
    assert not torch.equal(before["backbone.model.shared.weight"], embeddings)


def test_dropout_is_that_of_the_inputs_of_updates(make_lora, batch):
    model = make_lora(lora_dropout=1.0)
    routes_BLE = routes_of("soft")
    without = model(**batch, routes=torch.zeros_like(routes_BLE)).logits
    assert not torch.equal(model(**batch, routes=routes_BLE).logits, without)
    trained = model.train()(**batch, routes=routes_BLE, loss_only=False).logits
    torch.testing.assert_close(trained, without, rtol=0, atol=1e-12)


def test_a_table_trains_only_the_logits_of_its_tasks(make_stepper):
    stepper = make_stepper(dict(learning_rate=0, weight_decay=0), **STEPPED, **MHR)
    model = stepper.model
    make_differ(model)
    logits_ND = model.task_vectors.weight
    assert logits_ND.shape == (4, 2 * 2 * 3)
    assert 0 < logits_ND.abs().max() <= 1e-3
    before = parameters(stepper)
    for step in range(2):
        stepper.step(step)
    changed = {name for name, p in parameters(stepper).items() if not torch.equal(p, before[name])}
    assert changed == {"task_vectors.weight"}
    trained = (logits_ND != before["task_vectors.weight"]).any(1).nonzero()[:, 0].tolist()
    assert trained == sorted(set(stepper.examples.task_ids_N.tolist()))


@pytest.mark.parametrize("training", ["logits", "merged"])
def test_an_unseen_task_continues_along_the_route_of_its_vector(make_lora, batch, grids, training):
    """MHR-z and MHR-mu: the logits of the route alone are trained, or the merged model."""
    mixture = make_lora(3, dtype=torch.float32, **MHR)
    torch.nn.init.normal_(mixture.task_vectors.weight)
    route_LE = mixture.routes_for(["b"])[0].detach()
    expected = mixture(**batch, routes=route_LE.expand(len(batch["input_ids"]), -1, -1)).logits
    vector_D = mixture.task_vectors.weight[1].detach().numpy().copy()
    settings = replace(grids.settings("unused"), route_training=training)
    model, _ = along_route(mixture, settings, TaskChoice("new", "nearest", "vector of b", vector_D=vector_D))
    set_trained(model, training, freeze_embeds=False)
    model.eval().config.task_names = ["new"]
    task_ids = torch.zeros(len(batch["input_ids"]), dtype=torch.long)
    torch.testing.assert_close(model(**batch, task_ids=task_ids).logits, expected, rtol=0, atol=1e-4)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if training == "logits":
        assert trained == {"task_vectors.weight"}
        torch.testing.assert_close(model.routes_for(["new"])[0], route_LE)
    else:
        assert model.config.num_experts == 1
        assert len(trained) == len(dict(model.named_parameters()))


# ---- the BART that experts share


def test_from_bart_makes_a_routed_model_of_a_copy_that_is_trained(batch):
    bart = BartForConditionalGeneration(tiny_bart_config()).eval()
    before = {name: tensor.clone() for name, tensor in bart.state_dict().items()}
    bart.generation_config.update(num_beams=3)
    fields = dict(expert_kind="lora", task_names=["a"], router_input_dim=8, dropout=0.25)
    model = RoutingBartForConditionalGeneration.from_bart(bart, 2, **fields)
    assert isinstance(model, RoutedModel)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    names = ("num_experts", "lora_rank", "lora_alpha", "lora_targets", "label_smoothing", "base_model")
    assert [getattr(model.config, name) for name in names] == [2, 16, 16, "all", 0.1, None]
    assert (model.generation_config.num_beams, model.backbone.model.decoder.layers[0].dropout) == (3, 0.25)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert_equal(bart.state_dict(), before)
    plain = model.eval().to_bart(torch.zeros(4, 2))
    assert type(plain) is BartForConditionalGeneration
    padded = batch | {"labels": batch["labels"].masked_fill(batch["labels"] == -100, 1)}
    shifted = model.backbone.prepare_decoder_input_ids_from_labels(padded["labels"])
    ways = (batch, padded, padded | {"decoder_input_ids": shifted})
    losses = [model(**way, task_ids=torch.zeros(4, dtype=torch.long)).loss.item() for way in ways]
    assert losses[0] == losses[1] == losses[2]
    with pytest.raises(InputError, match="lora_rang is no field of a mixture"):
        RoutingBartForConditionalGeneration.from_bart(bart, 2, expert_kind="lora", lora_rang=2)
    with pytest.raises(Exception, match="low-rank experts of a BART are those of a RoutedModel"):
        RoutingBartConfig(expert_kind="lora")


@pytest.mark.parametrize("fields", [{}, LORA])
def test_fields_of_other_versions_do_not_change_what_is_loaded(fields, make_model, tmp_path):
    model = make_model(2, **fields)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"former_field": 2}))
    loaded = load_mixture(tmp_path)
    assert_equal(loaded.state_dict(), model.state_dict())


def test_a_run_as_base_gives_weights_but_no_dropout_and_has_one_expert(make_model, tmp_path):
    base = make_model(1, torch.float32, bart_fields=dict(dropout=0.0))
    base.save_pretrained(tmp_path / "base")
    fields = dict(LORA, task_names=["a"], route_source="average", dropout=0.4)
    model = RoutingBartForConditionalGeneration.from_bart(base.to_plain(), 2, **fields)
    refer_to_base(model, tmp_path / "base")
    model.save_pretrained(tmp_path / "model")
    loaded = RoutedModel.from_pretrained(tmp_path / "model")
    assert loaded.config.backbone.dropout == loaded.backbone.model.encoder.layers[0].dropout == 0.4
    assert_equal(loaded.state_dict(), model.state_dict())
    again = RoutingBartForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert type(again) is RoutedModel
    make_model(3, torch.float32).save_pretrained(tmp_path / "base")
    with pytest.raises(InputError, match=r"base: not the model that .* it is a mixture of 3 experts"):
        RoutedModel.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("kind", ["file", "run"])
def test_a_base_in_a_file_or_a_run_is_read_and_refused_when_it_has_changed(kind, make_model, tmp_path):
    plain = make_model(1, torch.float32).to_plain()

    def save_base():
        if kind == "file":
            torch.save(plain.state_dict(), tmp_path / "base")
        else:
            RoutingBartForConditionalGeneration.from_bart(plain, 1).save_pretrained(tmp_path / "base")

    save_base()
    fields = dict(LORA, task_names=["a"], route_source="average")
    model = RoutingBartForConditionalGeneration.from_bart(plain, 2, **fields)
    refer_to_base(model, tmp_path / "base")
    model.save_pretrained(tmp_path / "model")
    assert_equal(RoutedModel.from_pretrained(tmp_path / "model").state_dict(), model.state_dict())
    plain.model.encoder.layers[1].fc1.weight.data[2, 3] += 0.5
    save_base()
    with pytest.raises(InputError, match="base: not the model that the experts were trained on"):
        RoutedModel.from_pretrained(tmp_path / "model")
