"""Gradients as vectors: closed forms, batched against one example at a time, projection, parts, mixtures."""

import copy

import numpy as np
import pytest
import tiny_vectors
import torch
from slow_fisher import diagonal_fisher_one_by_one
from tiny_runs import ROWS, TRAIN_TASKS
from tiny_vectors import loaded, meta, vectors
from torch import nn

from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.model.task_vectors import load_meta, parts_in
from task.task_emb.gradients import (
    PATTERNS,
    Adapter,
    bart_log_likelihood,
    chosen_parameters,
    diagonal_fisher,
    fisher_batches,
    fisher_vector,
    insert_adapters,
    mean_gradient,
    projected,
    route_of,
    summed_over_experts,
)

BOTH = pytest.mark.parametrize("fisher_of", [diagonal_fisher, diagonal_fisher_one_by_one])


# ---- Fisher information: closed forms


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


def categorical(parameters, example):
    return parameters["logits"].log_softmax(dim=0).gather(0, example["label"][None])[0]


@BOTH
def test_fisher_information_of_a_categorical_distribution_is_p_times_one_minus_p(fisher_of):
    # Labels with the frequencies of the model: 1/2, 1/4, 1/8, 1/8.
    parameters = {"logits": torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64).log() + 3}
    batches = [{"label": torch.tensor([0, 0, 0, 0, 1, 1, 2, 3])}]
    found = fisher_of(categorical, parameters, batches)["logits"]
    assert found.tolist() == pytest.approx([1 / 4, 3 / 16, 7 / 64, 7 / 64])


# ---- BART


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
        names = chosen_parameters(model, weights)
    else:
        insert_adapters(model, bottleneck, seed)
        names = {name for name, p in model.named_parameters() if p.requires_grad}
    return {name: p for name, p in model.named_parameters() if name in names}


def fisher_on(model, parameters, examples, fisher_of=diagonal_fisher, max_tokens=100):
    named = {name: p.detach() for name, p in parameters.items()}
    batches = fisher_batches(examples, model, max_tokens, sum(p.numel() for p in named.values()))
    return fisher_of(bart_log_likelihood(model), named, batches)


def squared_gradients(model, parameters, examples):
    """Fisher information by the library's forward pass, one example at a time, without padding."""
    sums = [torch.zeros_like(p) for p in parameters.values()]
    for i in range(len(examples)):
        batch = examples.collate([i], pad_token_id=1)
        outputs = model.eval()(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"],
            loss_only=False,
        )  # fmt: skip
        log_p = outputs.logits[0].log_softmax(-1).gather(-1, batch["labels"][0][:, None]).sum()
        for total, gradient in zip(sums, torch.autograd.grad(log_p, list(parameters.values())), strict=True):
            total += gradient**2 / len(examples)
    return dict(zip(parameters, sums, strict=True))


@pytest.mark.parametrize("weights", ["adapters", "layers"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_fisher_information_of_batches_is_that_of_one_example_at_a_time(
    weights, activation, one_expert, task_examples
):
    model = one_expert(activation_function=activation)
    parameters = trained(model, weights)
    found = fisher_on(model, parameters, task_examples)
    for other in (
        fisher_on(model, parameters, task_examples, diagonal_fisher_one_by_one),
        fisher_on(model, parameters, task_examples, max_tokens=1),  # batches of one example: no padding
        squared_gradients(model, parameters, task_examples),
    ):
        assert list(found) == list(other)
        for name in found:
            torch.testing.assert_close(found[name], other[name], rtol=1e-9, atol=1e-12)
    assert all(value.dtype == torch.float64 and value.isfinite().all() for value in found.values())
    assert sum((value > 0).sum() for value in found.values()) > 0.5 * sum(v.numel() for v in found.values())


# ---- vectors


def test_vectors_average_over_weights_units_tensors_or_layers():
    fisher = {
        "model.encoder.layers.0.fc.weight": torch.tensor([[1.0, 3.0], [5.0, 7.0]]),
        "model.encoder.layers.0.fc.bias": torch.tensor([2.0, 4.0]),
        "model.encoder.layers.1.fc.weight": torch.tensor([[10.0]]),
        "model.decoder.layers.0.fc.bias": torch.tensor([20.0, 30.0, 40.0]),
    }
    parts = ("weight", "unit", "tensor", "layer")
    found = {part: fisher_vector(fisher, part).tolist() for part in parts}
    assert found["weight"] == [1, 3, 5, 7, 2, 4, 10, 20, 30, 40]
    assert found["unit"] == [2, 6, 2, 4, 10, 20, 30, 40]
    assert found["tensor"] == [4, 3, 10, 30]
    assert found["layer"] == [pytest.approx(22 / 6), 10, 30]


# ---- adapters


def test_adapters_depend_on_the_seed_start_near_the_identity_and_only_they_have_gradients(make_model, batch):
    model = make_model(1, task_names=["a"], bart_fields=dict(encoder_layers=2, decoder_layers=1))
    before = model(**batch).logits
    again, other = copy.deepcopy(model), copy.deepcopy(model)
    parameters = trained(model, bottleneck=4, seed=3)
    adapters = [module for module in model.modules() if isinstance(module, Adapter)]
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
    adapter = Adapter(sublayer, 1)
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


# ---- mean gradients


@pytest.fixture
def made_model(make_model):
    """made_model(kind): (model, route (1, L, E))."""

    def make(kind):
        n_experts = 1 if kind == "dense" else 3
        mixing = "parameters" if kind == "merged" else "outputs"
        fields = dict(expert_kind="lora", lora_rank=2) if kind == "low-rank" else {}
        model = make_model(n_experts, expert_mixing=mixing, encoder_vanilla_layers=[1], **fields)
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):  # zeros otherwise
                torch.nn.init.normal_(parameter, std=0.3)
        model.set_attn_implementation("eager")
        routes_1LE = torch.rand(1, 4, n_experts).double().softmax(-1)
        if kind == "one-hot":
            routes_1LE = (routes_1LE == routes_1LE.amax(-1, keepdim=True)).double()
        return model, routes_1LE

    return make


KINDS = ("dense", "softmax", "one-hot", "merged")


def fast(model, routes_1LE, examples, weights="all", max_tokens=100):
    log_likelihood = bart_log_likelihood(model, model.plan_routes(routes_1LE))
    batches = fisher_batches(examples, model, max_tokens, 1)
    return mean_gradient(log_likelihood, chosen_parameters(model, weights), batches)


def log_p(model, routes_1LE, examples, i):
    """The log-probability of an example's answer by the library's forward pass, without padding."""
    batch = examples.collate([i], pad_token_id=1)
    given = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    logits_TV = model(**given, routes=routes_1LE, loss_only=False).logits[0]
    return logits_TV.log_softmax(-1).gather(-1, batch["labels"][0][:, None]).sum()


def one_by_one(model, routes_1LE, examples, weights="all"):
    """The slow reference: a backward pass per example, then the mean of the gradients."""
    names = chosen_parameters(model, weights)
    parameters = [p for name, p in model.named_parameters() if name in names]
    total = {name: torch.zeros_like(p) for name, p in summed_over_experts(names).items()}
    for i in range(len(examples)):
        found = torch.autograd.grad(
            log_p(model, routes_1LE, examples, i), parameters, materialize_grads=True, allow_unused=True
        )
        of_example = summed_over_experts(dict(zip(names, found, strict=True)))
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
        *((kind, "all") for kind in KINDS),
        *(("softmax", some) for some in list(PATTERNS)[:-1]),
        ("low-rank", "all"),
        ("low-rank", "updates"),
    ],
)
def test_batches_give_the_mean_of_one_example_at_a_time(kind, weights, made_model, task_examples):
    model, routes_1LE = made_model(kind)
    expected = one_by_one(model, routes_1LE, task_examples, weights)
    for max_tokens in (100, 1):
        assert_close(fast(model, routes_1LE, task_examples, weights, max_tokens=max_tokens), expected)
    assert all(gradient.any() for name, gradient in expected.items() if not name.endswith("k_proj.bias"))


def test_the_gradient_by_the_embeddings_includes_their_use_in_the_output_layer(made_model, task_examples):
    model, routes_1LE = made_model("dense")
    (gradient_VD,) = fast(model, routes_1LE, task_examples, "embeddings").values()
    assert "lm_head.weight" not in fast(model, routes_1LE, task_examples, "all")
    step, ends = 1e-6 * gradient_VD, []
    with torch.no_grad():
        for sign in (1, -1):
            moved = copy.deepcopy(model)
            moved.model.shared.weight += sign * step
            assert torch.equal(moved.lm_head.weight, moved.model.shared.weight)
            ends.append(np.mean([log_p(moved, routes_1LE, task_examples, i) for i in range(7)]))
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(gradient_VD.square().sum().item(), rel=1e-6)
    assert gradient_VD[4:].any(dim=1).all()  # tokens that are in no text have a gradient, too


def test_a_mixture_of_equal_experts_has_the_gradient_of_the_dense_model(make_model, task_examples):
    dense = make_model(1)
    dense.set_attn_implementation("eager")
    plain = dense.to_bart(torch.ones(4, 1))
    expected = fast(dense, torch.ones(1, 4, 1), task_examples)
    routes_1LE = torch.rand(1, 4, 3).double().softmax(-1)
    for mixing in ("outputs", "parameters"):
        model = RoutingBartForConditionalGeneration.from_bart(
            plain, 3, 0.0, task_names=["a"], router_input_dim=8, expert_mixing=mixing
        )
        model.set_attn_implementation("eager")
        assert_close(fast(model.double().eval(), routes_1LE, task_examples), expected)


# ---- projection


def test_a_projection_adds_each_coordinate_with_a_sign_to_one_of_the_result():
    columns = [projected([row], 4, torch.Generator().manual_seed(3)) for row in torch.eye(200)]
    matrix_nD = torch.stack(columns)
    assert ((matrix_nD != 0).sum(dim=1) == 1).all()
    assert set(matrix_nD[matrix_nD != 0].tolist()) == {-1.0, 1.0}
    assert ((matrix_nD == 1).sum(dim=0) > 10).all()
    assert ((matrix_nD == -1).sum(dim=0) > 10).all()
    x_n = torch.randn(200)
    for tensors in ([x_n], [x_n[:60].view(6, 10), x_n[60:]]):
        found = projected(tensors, 4, torch.Generator().manual_seed(3))
        torch.testing.assert_close(found, x_n.double() @ matrix_nD)


def test_a_projection_nearly_keeps_cosines_and_depends_on_the_seed_alone():
    shared_n, own_Nn = torch.randn(20_000), torch.randn(12, 20_000)
    vectors_Nn = own_Nn + torch.linspace(0, 3, 12)[:, None] * shared_n

    def projections(seed):
        return torch.stack([projected([row], 512, torch.Generator().manual_seed(seed)) for row in vectors_Nn])

    def cosines(vectors):
        unit = torch.nn.functional.normalize(vectors.double())
        return unit @ unit.T

    first = projections(1)
    assert first.shape == (12, 512)
    errors = torch.stack([cosines(projections(seed)) - cosines(vectors_Nn) for seed in range(20)])
    assert errors.abs().max() < 5 / 512**0.5
    assert errors.mean(dim=0).abs().max() < 5 / (20 * 512) ** 0.5  # the expectation is exact
    assert torch.equal(first, projections(1))
    assert not torch.equal(first, projections(2))


# ---- parts


def made(world, folder, code=0, **changed):
    assert tiny_vectors.run("gradient", world.gym, world.bart, folder, **changed) == code
    return folder


def test_parts_are_the_sides_or_layers_in_the_order_of_the_model(world, tmp_path):
    def vector(**flags):
        name = "_".join(map(str, flags.values()))
        folder = made(world, tmp_path / name, tasks=["count"], projection_dim=0, **flags)
        return vectors(folder)["count"], parts_in(load_meta(folder))

    whole, no_parts = vector(weights="layers")
    assert no_parts == {}
    encoder, _ = vector(weights="encoder")
    decoder, _ = vector(weights="decoder")
    n, D = len(encoder), len(whole)
    np.testing.assert_allclose(whole, np.concatenate([encoder, decoder]), rtol=1e-4, atol=1e-6)
    sides, ends = vector(weights="layers", parts="sides")
    assert (sides.tobytes(), ends) == (whole.tobytes(), {"encoder": (0, n), "decoder": (n, D)})
    layers, ends = vector(weights="layers", parts="layers")
    assert layers.tobytes() == whole.tobytes()
    assert ends == {"encoder.0": (0, n // 2), "encoder.1": (n // 2, n), "decoder.0": (n, D)}


def test_each_part_is_projected_and_a_later_command_keeps_the_parts(world, tmp_path):
    flags = dict(weights="layers", parts="sides", projection_dim=10)
    folder = made(world, tmp_path / "sides", tasks=["count"], **flags)
    first = vectors(folder)["count"]
    made(world, folder, **flags)
    assert meta(folder)["parts"] == {"encoder": [0, 10], "decoder": [10, 20]}
    assert np.array_equal(vectors(folder)["count"], first)
    generator = torch.Generator().manual_seed(42)
    for start, weights in ((0, "encoder"), (10, "decoder")):
        of_side = loaded("gradient", world, weights=weights)
        gradient = of_side.gradient_of("count", of_side.encoded("count", "first"))
        expected = projected(list(gradient.values()), 10, generator).numpy()
        np.testing.assert_allclose(first[start : start + 10], expected, rtol=1e-3, atol=1e-4)
    assert list(vectors(folder)) == sorted(ROWS)


# ---- commands


def test_a_command_computes_the_mean_gradient_of_the_train_rows(world, tmp_path):
    found = vectors(made(world, tmp_path / "all", projection_dim=0, max_tokens_per_micro_batch=40))
    of_task = loaded("gradient", world)
    examples = of_task.encoded("count", "first")
    assert len(examples) == 12
    (expected,) = one_by_one(
        of_task.model.requires_grad_(True), torch.ones(1, 3, 1), examples, "embeddings"
    ).values()
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
        assert torch.equal(route_of(model, task), model.routes_for([task]))
        assert (route_of(model, task) == 1).any()
    for task in ("plural", "unknown"):
        assert (route_of(model, task) == 0.5).all()
    flags = dict(model=finished, weights="layers", parts="layers", projection_dim=0)
    folder = made(world, tmp_path / "mixture", **flags)
    dense = made(world, tmp_path / "dense", **flags | {"model": world.bart})
    assert meta(folder)["parts"] == meta(dense)["parts"]
    found, of_dense = vectors(folder), vectors(dense)
    assert all(np.abs(found[task] - of_dense[task]).max() > 1e-3 for task in ROWS)
    assert meta(folder)["seen"] == "labelled rows of one sample"
