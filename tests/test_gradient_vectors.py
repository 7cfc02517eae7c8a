"""Mean gradients and Fisher information as vectors: batched against one example at a time, closed forms."""

import copy

import numpy as np
import pytest
import tiny_vectors
import torch
from tiny_backbones import make_differ
from tiny_runs import ROWS, TRAIN_TASKS
from tiny_vectors import diagonal_fisher_one_by_one, loaded, meta, vectors
from torch import nn

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


def log_p(model, examples, i, routes_1LE=None):
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
        own, how = log_p(model, examples, i, routes_1LE), dict(materialize_grads=True, allow_unused=True)
        found = torch.autograd.grad(own, parameters, **how)
        of_example = gradients.summed_over_experts(dict(zip(names, found, strict=True)))
        for name, gradient in of_example.items():
            total[name] += gradient / len(examples)
    return total


def assert_close(found, expected, rtol=1e-8, atol=1e-11):
    assert list(found) == list(expected)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


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


# ---- Fisher information

BOTH = pytest.mark.parametrize("fisher_of", [gradients.diagonal_fisher, diagonal_fisher_one_by_one])


def gaussian(parameters, example):
    """log N(y; w x + b, 1) without its constant."""
    return -0.5 * (example["y"] - example["x"] @ parameters["w"] - parameters["b"]) ** 2


@BOTH
def test_fisher_information_of_linear_regression_is_the_mean_square_of_the_input(fisher_of):
    # Residuals of +1 and -1 have the variance of the model, so that the empirical Fisher information equals
    # the true one, E[x x^T] / sigma^2, whose diagonal is the mean of x^2, and 1 for the bias.
    x = torch.tensor([[1.0, -2.0], [3.0, 0.5], [0.0, 4.0], [2.0, 1.0]], dtype=torch.float64)
    parameters = {"w": torch.tensor([0.7, -0.2], dtype=torch.float64), "b": torch.tensor(0.3).double()}
    y = x @ parameters["w"] + parameters["b"] + torch.tensor([1.0, -1.0, -1.0, 1.0]).double()
    batches = [
        {"x": x[:3], "y": y[:3]},
        {"x": x[3:], "y": y[3:]},
    ]  # of unequal size: every example has the same weight
    found = fisher_of(gaussian, parameters, batches)
    assert found["w"].tolist() == pytest.approx([(1 + 9 + 0 + 4) / 4, (4 + 0.25 + 16 + 1) / 4])
    assert found["b"].item() == pytest.approx(1.0)


@pytest.fixture
def one_expert(make_model):
    """one_expert(): a routing BART with one expert, in float64, with attention that vmap supports."""

    def make(**bart_fields):
        model = make_model(1, task_names=["a"], bart_fields=bart_fields or None)
        model.set_attn_implementation("eager")
        return model

    return make


def trained(model, weights="adapters", bottleneck=3, seed=1):
    """Returns the parameters of a Fisher vector, by name."""
    if weights == "layers":
        names = gradients.chosen_parameters(model, weights)
    else:
        gradients.insert_adapters(model, bottleneck, seed)
        names = {name for name, p in model.named_parameters() if p.requires_grad}
    return {name: p for name, p in model.named_parameters() if name in names}


def fisher_on(model, parameters, examples, fisher_of=gradients.diagonal_fisher, max_tokens=100):
    named = {name: p.detach() for name, p in parameters.items()}
    batches = gradients.fisher_batches(examples, model, max_tokens, sum(p.numel() for p in named.values()))
    return fisher_of(gradients.log_likelihood_of(model), named, batches)


def squared_gradients(model, parameters, examples):
    """Fisher information by the library's forward pass, one example at a time, without padding."""
    sums = [torch.zeros_like(p) for p in parameters.values()]
    for i in range(len(examples)):
        found = torch.autograd.grad(log_p(model.eval(), examples, i), list(parameters.values()))
        for total, gradient in zip(sums, found, strict=True):
            total += gradient**2 / len(examples)
    return dict(zip(parameters, sums, strict=True))


@pytest.mark.parametrize(("weights", "activation"), [("adapters", "gelu"), ("layers", "relu")])
def test_batches_have_the_information_of_each_example_alone(weights, activation, one_expert, task_examples):
    model = one_expert(activation_function=activation)
    parameters = trained(model, weights)
    found = fisher_on(model, parameters, task_examples)
    for other in (
        fisher_on(model, parameters, task_examples, diagonal_fisher_one_by_one),
        fisher_on(model, parameters, task_examples, max_tokens=1),  # batches of one example: no padding
        squared_gradients(model, parameters, task_examples),
    ):
        assert_close(found, other, rtol=1e-9, atol=1e-12)
    assert all(value.dtype == torch.float64 and value.isfinite().all() for value in found.values())
    assert sum((value > 0).sum() for value in found.values()) > 0.5 * sum(v.numel() for v in found.values())


def test_vectors_have_each_weight_or_the_mean_of_each_output_unit():
    fisher = {"fc.weight": torch.tensor([[1.0, 3.0], [5.0, 7.0]]), "fc.bias": torch.tensor([2.0, 4.0])}
    assert gradients.fisher_vector(fisher, by_unit=False).tolist() == [1, 3, 5, 7, 2, 4]
    assert gradients.fisher_vector(fisher, by_unit=True).tolist() == [2, 6, 2, 4]


def test_adapters_depend_on_the_seed_start_near_the_identity_and_only_they_have_gradients(make_model, batch):
    model = make_model(1, task_names=["a"], bart_fields=dict(encoder_layers=2, decoder_layers=1))
    before = model(**batch).logits
    again, other = copy.deepcopy(model), copy.deepcopy(model)
    parameters = trained(model, bottleneck=4, seed=3)
    adapters = [module for module in model.modules() if isinstance(module, gradients.Adapter)]
    assert len(adapters) == 2 * 2 + 3  # two in an encoder layer, three in a decoder layer
    assert len(parameters) == len(adapters) * 4
    assert set(parameters) == {name for name, p in model.named_parameters() if p.requires_grad}
    moved = (model(**batch).logits - before).abs().max()
    assert 0 < moved < 0.05 * before.std()
    same, different = (trained(model, bottleneck=4, seed=seed) for model, seed in ((again, 3), (other, 4)))
    assert all(torch.equal(same[name], parameters[name]) for name in parameters)
    assert not all(torch.equal(different[name], parameters[name]) for name in parameters)


def test_an_adapter_is_added_to_the_output_of_its_sublayer():
    sublayer = nn.Linear(2, 3)
    adapter = gradients.Adapter(sublayer, 1)
    with torch.no_grad():
        adapter.down.weight.copy_(torch.tensor([[1.0, 2.0, 3.0]]))
        adapter.down.bias.fill_(0.5)
        adapter.up.weight.copy_(torch.tensor([[1.0], [-1.0], [2.0]]))
        adapter.up.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
        x = torch.tensor([[0.3, -0.4]])
        h = sublayer(x)
        inner = nn.functional.gelu(h[0, 0] + 2 * h[0, 1] + 3 * h[0, 2] + 0.5)
        expected = h[0] + torch.stack([inner + 0.1, -inner + 0.2, 2 * inner + 0.3])
    torch.testing.assert_close(adapter(x)[0], expected)
