"""Mean gradients as vectors: batched against one example at a time, projection, parts, mixtures."""

import numpy as np
import pytest
import tiny_vectors
import torch
from tiny_backbones import make_differ
from tiny_runs import ROWS, TRAIN_TASKS
from tiny_vectors import loaded, meta, vectors

from routing_moe import RoutingBartForConditionalGeneration
from task.task_emb import gradients


@pytest.fixture
def made_model(make_model):
    """made_model(kind): (model, route (1, L, E))."""

    def make(kind):
        n_experts = 1 if kind == "dense" else 2
        mixing = "parameters" if kind == "merged" else "outputs"
        fields = dict(expert_kind="lora", lora_rank=2) if kind == "low-rank" else {}
        model = make_model(n_experts, expert_mixing=mixing, encoder_vanilla_layers=[1], **fields)
        make_differ(model)
        model.set_attn_implementation("eager")
        routes_1LE = torch.rand(1, 4, n_experts).double().softmax(-1)
        if kind == "one-hot":
            routes_1LE = (routes_1LE == routes_1LE.amax(-1, keepdim=True)).double()
        return model, routes_1LE

    return make


def fast(model, routes_1LE, examples, weights="all", max_tokens=100):
    log_likelihood = gradients.log_likelihood_of(model, routes_1LE)
    batches = gradients.fisher_batches(examples, model, max_tokens, 1)
    return gradients.mean_gradient(log_likelihood, gradients.chosen_parameters(model, weights), batches)


def log_p(model, routes_1LE, examples, i):
    """The log-probability of an example's answer by the library's forward pass, without padding."""
    batch = examples.collate([i], pad_token_id=1)
    given = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    logits_TV = model(**given, routes=routes_1LE, loss_only=False).logits[0]
    return logits_TV.log_softmax(-1).gather(-1, batch["labels"][0][:, None]).sum()


def one_by_one(model, routes_1LE, examples, weights="all"):
    """The slow reference: a backward pass per example, then the mean of the gradients."""
    names = gradients.chosen_parameters(model, weights)
    parameters = [p for name, p in model.named_parameters() if name in names]
    total = {name: torch.zeros_like(p) for name, p in gradients.summed_over_experts(names).items()}
    for i in range(len(examples)):
        own, how = log_p(model, routes_1LE, examples, i), dict(materialize_grads=True, allow_unused=True)
        found = torch.autograd.grad(own, parameters, **how)
        of_example = gradients.summed_over_experts(dict(zip(names, found, strict=True)))
        for name, gradient in of_example.items():
            total[name] += gradient / len(examples)
    return total


def assert_close(found, expected):
    assert list(found) == list(expected)
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        *(("dense", "embeddings"), ("softmax", "all"), ("one-hot", "encoder")),
        *(("merged", "decoder"), ("low-rank", "updates")),
    ],
)
def test_batches_give_the_mean_of_one_example_at_a_time(kind, weights, made_model, task_examples):
    model, routes_1LE = made_model(kind)
    expected = one_by_one(model, routes_1LE, task_examples, weights)
    assert_close(fast(model, routes_1LE, task_examples, weights, max_tokens=20), expected)  # some batches
    assert all(gradient.any() for name, gradient in expected.items() if not name.endswith("k_proj.bias"))
    if weights == "embeddings":  # also of tokens that are in no text: the output layer has these weights
        assert expected["model.shared.weight"][4:].any(dim=1).all()


def test_a_mixture_of_equal_experts_has_the_gradient_of_the_dense_model(make_model, task_examples):
    dense = make_model(1)
    dense.set_attn_implementation("eager")
    plain = dense.to_bart(torch.ones(4, 1))
    expected = fast(dense, torch.ones(1, 4, 1), task_examples)
    routes_1LE = torch.rand(1, 4, 3).double().softmax(-1)
    for mixing in ("outputs", "parameters"):
        fields = dict(task_names=["a"], router_input_dim=8, expert_mixing=mixing)
        model = RoutingBartForConditionalGeneration.from_bart(plain, 3, 0.0, **fields)
        model.set_attn_implementation("eager")
        assert_close(fast(model.double().eval(), routes_1LE, task_examples), expected)


def test_a_projection_adds_each_coordinate_with_a_sign_to_one_of_the_result():
    columns = [gradients.projected([row], 4, torch.Generator().manual_seed(3)) for row in torch.eye(200)]
    matrix_nD = torch.stack(columns)
    assert ((matrix_nD != 0).sum(dim=1) == 1).all()
    assert set(matrix_nD[matrix_nD != 0].tolist()) == {-1.0, 1.0}
    assert ((matrix_nD == 1).sum(dim=0) > 10).all()
    assert ((matrix_nD == -1).sum(dim=0) > 10).all()
    x_n = torch.randn(200)
    for tensors in ([x_n], [x_n[:60].view(6, 10), x_n[60:]]):
        found = gradients.projected(tensors, 4, torch.Generator().manual_seed(3))
        torch.testing.assert_close(found, x_n.double() @ matrix_nD)


def made(world, folder, code=0, **changed):
    assert tiny_vectors.run("gradient", world.gym, world.bart, folder, **changed) == code
    return folder


def test_a_command_computes_the_mean_gradient_of_the_train_rows(world, tmp_path):
    found = vectors(made(world, tmp_path / "all", projection_dim=0, max_tokens_per_micro_batch=40))
    of_task = loaded("gradient", world)
    examples = of_task.encoded("count", "first")
    assert len(examples) == 12
    model = of_task.model.requires_grad_(True)
    (expected,) = one_by_one(model, torch.ones(1, 3, 1), examples, "embeddings").values()
    of_task.model.requires_grad_(False)  # other tests use it
    np.testing.assert_allclose(found["count"], expected.flatten().numpy(), rtol=1e-3, atol=1e-4)


def test_bf16_products_give_nearly_the_same_gradients_in_float32(world):
    exact, rounded = (
        loaded("gradient", world, mixed_precision=precision).vector_of("count", "first")
        for precision in ("no", "bf16")
    )
    assert rounded.dtype == exact.dtype
    assert not np.array_equal(exact, rounded)
    np.testing.assert_allclose(rounded, exact, atol=0.05 * np.abs(exact).max())


def test_a_mixture_uses_the_routes_of_the_tasks_it_was_trained_on(finished, world, tmp_path):
    model = RoutingBartForConditionalGeneration.from_pretrained(finished / "best").eval()
    assert model.config.trained_tasks == TRAIN_TASKS
    assert "plural" in model.config.task_names
    for task in TRAIN_TASKS:
        assert torch.equal(gradients.route_of(model, task), model.routes_for([task]))
        assert (gradients.route_of(model, task) == 1).any()
    for task in ("plural", "unknown"):
        assert (gradients.route_of(model, task) == 0.5).all()
    flags = dict(model=finished, weights="layers", projection_dim=0)
    folder = made(world, tmp_path / "mixture", **flags)
    dense = made(world, tmp_path / "dense", **flags | {"model": world.bart})
    found, of_dense = vectors(folder), vectors(dense)
    assert all(np.abs(found[task] - of_dense[task]).max() > 1e-3 for task in ROWS)
    assert meta(folder)["seen"] == "labelled rows of one sample"
