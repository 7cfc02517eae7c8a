"""Mixed parameters, and generation with many different one-hot routes."""

import pytest
import torch
from conftest import one_hot_routes
from tiny_steps import merged_one_by_one
from transformers import BartForConditionalGeneration

from routing_moe.model.routed_layer import RoutedLayer

TASK_IDS = torch.tensor([0, 3, 1, 0])
L, E = 4, 3


def merged_by_hand(model, route_LE) -> BartForConditionalGeneration:
    """Returns a plain BART with weights summed one by one; differentiable by the route through hooks."""
    bart = BartForConditionalGeneration(model.config.to_bart_config()).double().train(model.training)
    state = {n: t for n, t in model.state_dict().items() if ".experts." not in n}
    for row, layer in enumerate(model.routed_layers()):
        side, i = ("encoder", row) if row < 2 else ("decoder", row - 2)
        for name in layer.experts[0].state_dict():
            parts = [w * e.state_dict()[name] for w, e in zip(route_LE[row], layer.experts, strict=True)]
            state[f"model.{side}.layers.{i}.{name}"] = torch.stack(parts).sum(0)
    own = {n: t for n, t in state.items() if not n.startswith(("router", "task_"))}
    assert bart.load_state_dict(own, strict=False).missing_keys == []
    return bart


def test_merged_parameters_are_those_of_a_bart_merged_by_hand(make_model, batch):
    model = make_model(expert_mixing="parameters")
    routes = torch.rand(2, L, E, dtype=torch.float64).softmax(-1)[[0, 1, 1, 0]]
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    start = model.config.decoder_start_token_id
    target = torch.tensor([[start, 5, 9]] * 4)
    ours = model(**inputs, decoder_input_ids=target, routes=routes).logits
    for b in range(4):
        alone = {k: v[b : b + 1] for k, v in inputs.items()}
        for plain in (merged_by_hand(model, routes[b]), model.to_bart(routes[b])):
            theirs = plain(**alone, decoder_input_ids=target[b : b + 1]).logits
            torch.testing.assert_close(ours[b : b + 1], theirs, rtol=1e-11, atol=1e-12)


def test_a_batch_merges_once_for_each_distinct_task(make_model, batch, monkeypatch):
    model = make_model(expert_mixing="parameters", router_mode="gumbel_softmax").train()
    merges = []
    for layer in model.routed_layers():
        merge = layer.merged_parameters
        monkeypatch.setattr(layer, "merged_parameters", lambda w, merge=merge: merges.append(w) or merge(w))
    model(**batch, task_ids=TASK_IDS).loss.backward()
    assert [len(weights_GE) for weights_GE in merges] == [3] * L
    assert model.task_vectors.weight.grad[[0, 1, 3]].abs().sum(1).min() > 0
    merges.clear()
    model.use_routes("average")
    model(**batch, task_ids=TASK_IDS)
    assert [len(weights_GE) for weights_GE in merges] == [1] * L


@pytest.mark.parametrize(
    ("tasks", "frozen"),
    [([0, 3, 1, 0], ()), ([2, 2, 2, 2], ("router.", "task_vectors.")), ([3, 2, 1, 0], ("model.",))],
)
def test_merging_at_once_equals_merging_one_by_one(tasks, frozen, make_model, batch, monkeypatch):
    model = make_model(expert_mixing="parameters", router_mode="softmax").train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(frozen)))
    found = []
    for merge in (RoutedLayer.merged_parameters, merged_one_by_one):
        monkeypatch.setattr(RoutedLayer, "merged_parameters", merge)
        model.zero_grad()
        loss = model(**batch, task_ids=torch.tensor(tasks)).loss
        loss.backward()
        found.append((loss, {n: p.grad for n, p in model.named_parameters()}))
    (loss, ours), (expected, theirs) = found
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)


def test_parameters_are_merged_in_their_own_precision(make_model, batch):
    model = make_model(dtype=torch.float32, expert_mixing="parameters", router_mode="softmax").train()
    layer = model.routed_layers()[0]
    weights_GE = torch.rand(2, E).softmax(-1)
    with torch.autocast("cpu", torch.bfloat16):
        merged = layer.merged_parameters(weights_GE)
    torch.testing.assert_close(merged, merged_one_by_one(layer, weights_GE), rtol=1e-6, atol=1e-7)


def test_router_gradients_are_equal_for_merging_per_task_and_per_example(make_model, batch):
    model, gradients = make_model(expert_mixing="parameters", router_mode="softmax").train(), []
    for groups in (TASK_IDS, None):
        model.zero_grad()
        loss = model(**batch, routes=model.draw_routes(TASK_IDS), route_groups=groups).loss
        loss.backward()
        gradients.append([p.grad.clone() for p in [*model.router.parameters(), model.task_vectors.weight]])
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-13)


def test_merged_models_generate_as_the_plain_barts_of_their_routes(make_model, batch):
    model = make_model(expert_mixing="parameters")
    routes = torch.rand(2, L, E, dtype=torch.float64).softmax(-1)[[0, 1, 1, 0]]
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    options = dict(num_beams=3, max_length=9)
    together = model.generate(**inputs, routes=routes, **options)
    detailed = model.generate(**inputs, routes=routes, return_dict_in_generate=True, **options).sequences
    for b in range(4):
        alone = model.to_bart(routes[b]).generate(**{k: v[b : b + 1] for k, v in inputs.items()}, **options)
        for rows in (together, detailed):
            assert torch.equal(rows[b, : alone.shape[1]], alone[0])
            assert (rows[b, alone.shape[1] :] == model.config.pad_token_id).all()
        # transformers calls the encoder separately, with the routes only.
        encoded = model.get_encoder()(**inputs, routes=routes)[0][b, : inputs["attention_mask"][b].sum()]
        plain = model.to_bart(routes[b]).get_encoder()(**{k: v[b : b + 1] for k, v in inputs.items()})[0]
        torch.testing.assert_close(encoded, plain[0, : len(encoded)], rtol=1e-11, atol=1e-12)
    with pytest.raises(ValueError, match="same route for the whole batch"):
        model(**inputs, decoder_input_ids=torch.full((4, 1), 2), routes=routes, use_cache=True)


def test_many_different_one_hot_routes_are_decoded_together(make_model, batch, monkeypatch):
    model = make_model(num_experts=2)
    choices = [[0, 1, 1, 0], [1, 1, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 1, 1]]
    routes = one_hot_routes(choices, 2)
    inputs = {k: torch.cat([v, v[:2]]) for k, v in batch.items() if k != "labels"}
    one_by_one = [
        model.generate(**{k: v[b : b + 1] for k, v in inputs.items()}, routes=routes[b : b + 1], max_length=9)
        for b in range(6)
    ]
    monkeypatch.setattr(model, "to_bart", None)
    examples_run = []
    for layer in model.model.encoder.layers:
        for expert in layer.experts:
            expert.register_forward_hook(lambda _, args, out: examples_run.append(out.shape[0]))
    together = model.generate(**inputs, routes=routes, max_length=9)
    assert sum(examples_run) == 6 * 2  # the encoder runs one expert per layer; only the decoder runs all
    for rows, alone in zip(together, one_by_one, strict=True):
        assert torch.equal(rows[: alone.shape[1]], alone[0])
