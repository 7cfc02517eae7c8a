"""Learned tokens: exact for every route, and equal to plain BARTs with another first position."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import assert_generates_as_plain_barts, one_hot_routes
from tiny_grids import NO_ROUTER, QUICK, TASK, results
from tiny_runs import NO_LEARNING, assert_equal, assert_same_run, run, weights
from transformers import BartForConditionalGeneration

from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.cli.export import main as export
from routing_moe.evaluation.option_ranking import encoded, mean_log_likelihood
from routing_moe.model.loading import load_routing_bart

pytestmark = pytest.mark.usefixtures("quick_pictures")

TOKENS = NO_ROUTER | dict(expert_kind="token", task_routes="tasks", num_experts=None, init_eps=None)
NAME = "model.encoder.embed_positions.tokens"


@pytest.fixture
def make_tokens(make_model):
    """make_tokens(E, **fields) returns a model whose tokens differ from 0."""

    def make(num_experts=4, **fields):
        model = make_model(num_experts, expert_kind="token", **fields)
        torch.nn.init.normal_(model.model.encoder.embed_positions.tokens, std=0.5)
        return model

    return make


def routes_of(kind: str, E: int = 4) -> torch.Tensor:
    """Returns routes (4, L, E) of four examples."""
    logits_BLE = torch.randn(4, 4, E, dtype=torch.float64)
    return logits_BLE.softmax(-1) if kind == "soft" else one_hot_routes(logits_BLE.argmax(-1), E)


def slow_bart(model, route_LE) -> BartForConditionalGeneration:
    """Returns the plain BART of a route, whose first position has the weighted tokens: the specification."""
    bart = BartForConditionalGeneration(model.config.to_bart_config()).double().eval()
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    tokens_ED = state.pop(NAME)
    first = state["model.encoder.embed_positions.weight"][2]  # BART leaves out two positions
    for e, token_D in enumerate(tokens_ED):
        first += route_LE[0, e] * token_D
    bart.load_state_dict({n: t for n, t in state.items() if not n.startswith(("router.", "task_vectors."))})
    return bart


@pytest.mark.parametrize("kind", ["soft", "one_hot"])
def test_mixed_examples_give_the_loss_and_gradients_of_their_plain_barts(make_tokens, batch, kind):
    model, routes_BLE = make_tokens(), routes_of(kind)
    model(**batch, routes=routes_BLE).loss.backward()
    tokens, total = model.model.encoder.embed_positions.tokens, 0
    expected_ED, shared = torch.zeros_like(tokens), torch.zeros_like(model.model.shared.weight)
    for i, route_LE in enumerate(routes_BLE):
        bart = slow_bart(model, route_LE)
        own = {name: tensor[i : i + 1] for name, tensor in batch.items()}
        logits = bart(**own).logits[own["labels"] != -100]
        targets = own["labels"][own["labels"] != -100]
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=0.1)
        loss.backward()
        total += loss.detach()
        expected_ED += route_LE[0, :, None] * bart.model.encoder.embed_positions.weight.grad[2]
        shared += bart.model.shared.weight.grad
        torch.testing.assert_close(model.to_bart(route_LE)(**own).logits, bart(**own).logits)
    torch.testing.assert_close(model(**batch, routes=routes_BLE).loss, total, rtol=0, atol=1e-10)
    torch.testing.assert_close(tokens.grad, expected_ED, rtol=0, atol=1e-10)
    torch.testing.assert_close(model.model.shared.weight.grad, shared, rtol=0, atol=1e-10)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["soft", "one_hot"])
def test_generation_along_mixed_routes_is_that_of_their_plain_barts(make_tokens, batch, kind, beams):
    model = make_tokens(bart_fields=dict(init_std=0.8))
    assert_generates_as_plain_barts(model, batch, routes_of(kind), beams, slow_bart)


def test_ranking_reads_the_tokens(make_tokens, batch):
    model, routes_BLE = make_tokens(), routes_of("one_hot")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}

    def scores(bart, own, labels, routes):
        states_BSD = encoded(bart, own, routes, torch.no_grad)
        return mean_log_likelihood(bart, states_BSD, own["attention_mask"], labels, routes)

    found = scores(model, inputs, batch["labels"], routes_BLE)
    for i, route_LE in enumerate(routes_BLE):
        own = {name: tensor[i : i + 1] for name, tensor in inputs.items()}
        expected = scores(slow_bart(model, route_LE), own, batch["labels"][i : i + 1], None)
        torch.testing.assert_close(found[i : i + 1], expected, rtol=0, atol=1e-12)


def test_a_single_token_is_that_of_every_example(make_tokens, batch):
    model = make_tokens(1)
    expected = slow_bart(model, torch.ones(4, 1))(**batch).logits
    torch.testing.assert_close(model(**batch).logits, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(model.to_bart()(**batch).logits, expected, rtol=0, atol=1e-12)


def test_tokens_are_0_at_first_and_no_graph_is_kept(make_model, batch):
    bart = make_model(1)
    model = RoutingBartForConditionalGeneration.from_bart(
        bart.to_bart(), 5, expert_kind="token", route_source="average"
    ).double()
    torch.testing.assert_close(model(**batch, task_ids=torch.zeros(4).long()).loss, bart(**batch).loss)
    assert model.model.encoder.embed_positions.weights_BE is None
    with pytest.raises(ValueError, match="mixed are the same"):
        make_model(2, expert_kind="token", expert_mixing="parameters")


def test_distances_are_those_of_the_tokens(make_tokens):
    model = make_tokens(3)
    (layer,) = model.routed_layers()
    pairs = [(layer.tokens[a], layer.tokens[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    distances = torch.stack([torch.dist(p, q) for p, q in pairs])
    means = torch.stack([((p.square().sum() + q.square().sum()) / 2).sqrt() for p, q in pairs])
    assert model.expert_distance().item() == pytest.approx(distances.mean().item())
    assert model.relative_expert_distance() == pytest.approx((distances / means).mean().item())
    layer.copy_expert(0, 2)
    assert torch.equal(layer.tokens[0], layer.tokens[2])


# ---- runs


@pytest.fixture(scope="module")
def token_run(world):
    return world.run("tokens", **TOKENS, do_predict=True)


def test_a_resumed_run_is_that_of_an_uninterrupted_one(world, token_run):
    assert_same_run(world.resumed("tokens stopped", **TOKENS, do_predict=True), token_run)


def test_each_train_task_learns_a_token_and_the_bart_is_trained_too(world, token_run):
    routes_NLE = np.load(token_run / "6-steps/route.npy")
    tasks = (token_run / "6-steps/route_tasks.txt").read_text().split()
    assert routes_NLE[:, 0].tolist() == np.eye(3).tolist()
    assert len(tasks) == 3
    state, start = weights(token_run / "last"), weights(world.bart)
    distances = torch.cdist(state[NAME], state[NAME])
    assert (distances[~torch.eye(3, dtype=bool)] > 0.01).all()
    assert (state[NAME] != 0).any(dim=1).all()
    assert not torch.equal(state["model.shared.weight"], start["model.shared.weight"])
    assert "given (tasks); 3 learned tokens\n" in (token_run / "log.txt").read_text()


def test_an_unseen_task_has_the_mean_of_the_tokens(world, token_run):
    of_test = dict(do_train=None, do_predict=True, initialize_from_vanilla=None, predict_split="test")
    again = TOKENS | of_test | dict(task_routes=None, expert_kind=None)
    folder = world.copy(token_run, "unseen of tokens")
    assert run(world.gym, None, folder, **again) == 0
    (row,) = pd.read_csv(folder / "best/eval-test_tasks-test-performance.csv").to_dict("records")
    model = load_routing_bart(RoutingBartForConditionalGeneration, token_run / "best")
    mean = torch.full((model.config.num_layers, 3), 1 / 3)
    first = model.to_bart(mean).model.encoder.embed_positions.weight[2]
    own = model.state_dict()
    expected = own["model.encoder.embed_positions.weight"][2] + own[NAME].mean(dim=0)
    torch.testing.assert_close(first, expected)
    assert row["route"].startswith("average")


def test_a_task_is_exported_and_fine_tuned_as_a_plain_bart_with_its_token(world, grids, token_run, tmp_path):
    words = ["--checkpoint", str(token_run), "--task", "count", "--output_dir", str(tmp_path / "plain")]
    assert export(words) == 0
    model = load_routing_bart(RoutingBartForConditionalGeneration, token_run / "best")
    bart = BartForConditionalGeneration.from_pretrained(tmp_path / "plain")
    expected = model.to_bart(model.routes_for(["count"])[0])
    assert_equal(bart.state_dict(), expected.state_dict())
    start = dict(moe_init=True, init_dir=token_run, save_best=True, learning_rate_list=[0.03])
    folder = grids.run("of_tokens", **QUICK | start)
    assert set(results(folder)["route"]) == {"average: no route; plain BART"}
    assert NAME not in weights(next((folder / "models").glob(f"{TASK}*")))


def test_a_trained_bart_gets_tokens_for_groups_of_tasks(world, token_run):
    dense = world.run("before tokens", num_experts=1, init_eps=None, **NO_ROUTER, total_steps=1)
    grouped = TOKENS | dict(task_routes="ontology", vanilla_checkpoint=dense, init_eps=None) | NO_LEARNING
    state = weights(world.run("grouped tokens", **grouped | NO_ROUTER) / "last")
    assert state[NAME].shape[0] == 2
    assert not state.pop(NAME).any()
    plain = {n.replace(".experts.0", ""): t for n, t in weights(dense / "last").items()}
    assert_equal({name: state[name] for name in plain}, plain)
