"""The routing BART: exact fast paths, identity with plain BART, generation, saving and loading."""

import pytest
import torch
from conftest import one_hot_routes, tiny_bart_config
from transformers import AutoModelForSeq2SeqLM, BartForConditionalGeneration

from dataloader.errors import InputError
from routing_moe import RoutingBartConfig, RoutingBartForConditionalGeneration
from routing_moe.config.choices import ROUTERS
from routing_moe.model.routed_layer import RoutePlan

CHOICES_BL = torch.tensor([[0, 1, 2, 0], [2, 1, 0, 1], [1, 1, 1, 1], [0, 2, 2, 2]])


def routes_of_kind(kind, L=4, E=3):
    if kind == "one-hot":
        return one_hot_routes(CHOICES_BL[:, :L], E)
    if kind == "one-hot, one for all":
        return one_hot_routes(CHOICES_BL[:1, :L].expand(4, -1), E)
    soft = torch.rand(4, L, E, dtype=torch.float64).softmax(-1)
    if kind == "some zeros":
        soft[:, ::2, 0] = 0
        soft[1, 1] = torch.tensor([0.0, 1.0, 0.0])
        soft = soft / soft.sum(-1, keepdim=True)
    return soft


def loss_and_gradients(model, batch, routes, sparse):
    model.train()
    model.zero_grad()
    routes = routes.detach().clone().requires_grad_(routes.requires_grad)
    loss = model(**batch, routes=routes, sparse=sparse).loss
    loss.backward()
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    return loss.detach(), gradients | {"routes": torch.zeros(()) if routes.grad is None else routes.grad}


@pytest.mark.parametrize("trains_routes", [False, True])
@pytest.mark.parametrize("kind", ["one-hot", "one-hot, one for all", "some zeros", "soft"])
def test_skipping_zero_weights_changes_neither_loss_nor_gradients(kind, trains_routes, make_model, batch):
    model = make_model()
    routes = routes_of_kind(kind).requires_grad_(trains_routes)
    fast_loss, fast = loss_and_gradients(model, batch, routes, sparse=True)
    slow_loss, slow = loss_and_gradients(model, batch, routes, sparse=False)
    torch.testing.assert_close(fast_loss, slow_loss, rtol=1e-13, atol=0)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-12)
    assert (fast["routes"].abs().sum() > 0) == trains_routes


def test_training_and_eval_losses_agree_and_ignore_padding(make_model, batch):
    model, routes = make_model(), routes_of_kind("soft")
    evaluated = model(**batch, routes=routes)
    assert evaluated.logits.shape == (4, 6, 60)
    trained = model.train()(**batch, routes=routes)
    assert trained.logits is None
    torch.testing.assert_close(trained.loss, evaluated.loss, rtol=1e-12, atol=0)
    padded = batch | {"labels": batch["labels"].masked_fill(batch["labels"] == -100, 1)}
    torch.testing.assert_close(model(**padded, routes=routes).loss, trained.loss, rtol=1e-12, atol=0)


# ---- identity with plain BART


def test_one_hot_routes_equal_the_assembled_bart_bit_for_bit(make_model, batch):
    model = make_model(dtype=torch.float32)
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    decoder_input_ids = batch["labels"].clamp(min=1)
    routes = one_hot_routes(CHOICES_BL[:1].expand(4, -1), 3, torch.float32)
    ours = model(**inputs, decoder_input_ids=decoder_input_ids, routes=routes).logits
    plain = model.to_bart(routes[0])(**inputs, decoder_input_ids=decoder_input_ids).logits
    assert torch.equal(ours, plain)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_different_one_hot_route_per_example(num_beams, make_model, batch):
    model, routes = make_model(), routes_of_kind("one-hot")
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    decoder_input_ids = batch["labels"].clamp(min=1)
    together = model(**inputs, decoder_input_ids=decoder_input_ids, routes=routes).logits
    generated = model.generate(**inputs, routes=routes, num_beams=num_beams, max_length=12)
    for i in range(4):
        bart, one = model.to_bart(routes[i]), {k: v[i : i + 1] for k, v in inputs.items()}
        alone = bart(**one, decoder_input_ids=decoder_input_ids[i : i + 1]).logits
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-10, atol=1e-12)
        expected = bart.generate(**one, num_beams=num_beams, max_length=12)[0]
        assert torch.equal(generated[i, : len(expected)], expected)
        assert (generated[i, len(expected) :] == 1).all()


def test_what_names_rows_of_a_batch_is_generated_together(make_model, batch):
    model, routes = make_model(), routes_of_kind("one-hot")
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    allowed = dict(prefix_allowed_tokens_fn=lambda i, _: [10 + i])
    found = model.generate(**inputs, routes=routes, max_length=4, **allowed)
    assert (found[:, 1:3] == torch.arange(10, 14)[:, None]).all()  # then the end
    states = model.model.encoder(**inputs, route_plan=RoutePlan(routes))
    found = model.generate(**inputs, routes=routes, max_length=6, encoder_outputs=states)
    assert torch.equal(found, model.generate(**inputs, routes=routes, max_length=6))
    with pytest.raises(ValueError, match="output_hidden_states: they would be those of experts"):
        model(**inputs, decoder_input_ids=batch["labels"], routes=routes, output_hidden_states=True)


def test_a_bart_whose_projection_is_not_its_embeddings_is_refused(make_model):
    bart = make_model(1).to_bart()
    bart.lm_head.weight = torch.nn.Parameter(bart.lm_head.weight + 1)
    with pytest.raises(InputError, match=r"lm_head\.weight of the BART differs from its embeddings"):
        RoutingBartForConditionalGeneration.from_bart(bart, 2)
    with pytest.raises(InputError, match="router_mod is no field of a mixture"):
        RoutingBartForConditionalGeneration.from_bart(bart, 2, router_mod="softmax")


def test_soft_beams_with_and_without_cache_are_equal(make_model, batch):
    model, routes = make_model(encoder_vanilla_layers=[1], decoder_vanilla_layers=[0]), routes_of_kind("soft")
    inputs = dict(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], routes=routes)
    settings = dict(num_beams=4, max_length=12, output_scores=True, return_dict_in_generate=True)
    cached = model.generate(**inputs, **settings)
    uncached = model.generate(**inputs, **settings, use_cache=False)
    assert torch.equal(cached.sequences, uncached.sequences)
    torch.testing.assert_close(cached.sequences_scores, uncached.sequences_scores, rtol=1e-9, atol=1e-9)


def test_encoder_and_decoder_may_differ_in_depth_and_vanilla_layers(make_model, batch):
    fields = dict(encoder_vanilla_layers=[1], decoder_vanilla_layers=[0, 3])
    model = make_model(bart_fields=dict(encoder_layers=2, decoder_layers=4), **fields)
    assert model.config.routed_rows == [0, 3, 4]
    assert len(model.routed_layers()) == 3
    routes = one_hot_routes(torch.randint(3, (1, 6)).expand(4, -1), 3)
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    plain = model.to_bart(routes[0])
    decoder_input_ids = batch["labels"].clamp(min=1)
    logits = model(**inputs, decoder_input_ids=decoder_input_ids, routes=routes).logits
    expected = plain(**inputs, decoder_input_ids=decoder_input_ids).logits
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-12)


def test_an_assembled_bart_shares_its_tensors_and_exports_without_this_package(make_model, batch, tmp_path):
    model = make_model(dtype=torch.float32)
    bart = model.to_bart(one_hot_routes(CHOICES_BL[0], 3))
    expert = model.model.encoder.layers[1].experts[1]
    assert bart.model.encoder.layers[1].fc1.weight is expert.fc1.weight
    assert bart.lm_head.weight is model.model.shared.weight
    bart.save_pretrained(tmp_path)
    exported = BartForConditionalGeneration.from_pretrained(tmp_path)
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    assert exported.config.model_type == "bart"
    assert not hasattr(exported.config, "num_experts")
    assert torch.equal(exported.generate(**inputs, num_beams=4), bart.generate(**inputs, num_beams=4))


# ---- saving, loading, names


def test_a_saved_model_loads_with_vectors_and_router(make_model, batch, tmp_path):
    fields = dict(router_nn_type="lstm", router_mode="softmax", encoder_vanilla_layers=[0])
    model = make_model(dtype=torch.float32, **fields)
    model.config.router_temperature = 0.37
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, RoutingBartForConditionalGeneration)
    assert loaded.config.task_names == ["a", "b", "c", "d"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    task_ids = torch.tensor([0, 1, 2, 3])
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    settings = dict(task_ids=task_ids, num_beams=2, max_length=8)
    assert torch.equal(loaded.generate(**inputs, **settings), model.generate(**inputs, **settings))
    assert torch.equal(loaded.routes_for(["c"]), model.routes_for(["c"]))


@pytest.mark.parametrize("router", ROUTERS)
def test_routers_are_initialised_as_the_published_ones(router):
    """Linear and embedding weights from N(0, 0.02), biases 0; recurrent weights and biases as in torch,
    uniform within 1 / sqrt(H); in-projection of attention uniform by Glorot's rule."""
    H = 64
    config = RoutingBartConfig(
        **{k: v for k, v in tiny_bart_config().to_dict().items() if k != "model_type"},
        task_names=["a"], router_nn_type=router, router_input_dim=32, router_hidden_dim=H,
    )  # fmt: skip
    mixture = RoutingBartForConditionalGeneration(config).router
    for path, module in mixture.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            spread, largest = parameter.std().item(), parameter.abs().max().item()
            if isinstance(module, torch.nn.RNNBase):
                assert spread == pytest.approx(H**-0.5 / 3**0.5, rel=0.15), name
                assert 0.9 * H**-0.5 < largest <= H**-0.5, name
            elif name.endswith("in_proj_weight"):
                bound = (6 / (4 * parameter.shape[1])) ** 0.5
                assert 0.9 * bound < largest <= bound, name
            elif isinstance(module, torch.nn.LayerNorm):
                assert parameter.unique().tolist() == [1.0 if name.endswith("weight") else 0.0], name
            elif parameter.ndim > 1:
                assert spread == pytest.approx(0.02, rel=0.3), name
            else:
                assert largest == 0.0, name


def test_initial_task_vectors_are_standard_normal_and_routes_almost_uniform():
    config = RoutingBartConfig(
        **tiny_bart_config().to_dict() | {"model_type": "routing_bart"},
        task_names=[str(i) for i in range(200)],
        router_input_dim=64,
    )
    model = RoutingBartForConditionalGeneration(config)
    assert model.task_vectors.weight.std().item() == pytest.approx(1.0, abs=0.05)
    routes = model.routes_for(config.task_names, "softmax", 1.0)
    assert (routes - 1 / 3).abs().max() < 0.1


def test_expert_distances_are_means_over_pairs_and_have_gradients(make_model):
    model = make_model()
    layer = model.routed_layers()[0]
    a, b, c = ([p.detach() for p in expert.parameters()] for expert in layer.experts)
    by_hand = sum((p - q).norm() for x, y in ((a, b), (a, c), (b, c)) for p, q in zip(x, y, strict=True)) / 3
    torch.testing.assert_close(layer.expert_distance(), by_hand)
    p, q = (torch.cat([parameter.flatten() for parameter in own]) for own in (a, b))
    two = make_model(num_experts=2)
    for expert, own in zip(two.routed_layers()[0].experts, (a, b), strict=True):
        expert.load_state_dict(dict(zip(expert.state_dict(), own, strict=True)))
    relative = (p - q).norm() / ((p.square().sum() + q.square().sum()) / 2).sqrt()
    assert two.routed_layers()[0].relative_expert_distance() == pytest.approx(float(relative))
    bart = BartForConditionalGeneration(tiny_bart_config())
    equal = RoutingBartForConditionalGeneration.from_bart(bart, 3, init_eps=0.0)
    assert equal.relative_expert_distance() == 0.0
    assert make_model(num_experts=1).relative_expert_distance() is None
    equal.expert_distance().backward()
    gradients = [p.grad for p in equal.routed_layers()[0].parameters()]
    assert all(torch.isfinite(g).all() for g in gradients)
