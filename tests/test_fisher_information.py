"""Fisher information: closed forms, batched against one example at a time, its vectors, adapters."""

import copy

import pytest
import torch
from tiny_vectors import diagonal_fisher_one_by_one
from torch import nn

from task.task_emb import gradients

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
        batch = examples.collate([i], pad_token_id=1)
        outputs = model.eval()(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"],
            loss_only=False,
        )  # fmt: skip
        log_p = outputs.logits[0].log_softmax(-1).gather(-1, batch["labels"][0][:, None]).sum()
        for total, gradient in zip(sums, torch.autograd.grad(log_p, list(parameters.values())), strict=True):
            total += gradient**2 / len(examples)
    return dict(zip(parameters, sums, strict=True))


@pytest.mark.parametrize(("weights", "activation"), [("adapters", "gelu"), ("layers", "relu")])
def test_batches_give_that_of_one_example_at_a_time(weights, activation, one_expert, task_examples):
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
