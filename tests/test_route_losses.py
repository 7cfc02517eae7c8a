"""Losses along routes: comparison with one example and one route at a time."""

import numpy as np
import pytest
import torch
from conftest import one_hot_routes
from torch.nn import functional as F
from transformers.models.bart.modeling_bart import shift_tokens_right

from routing_moe.evaluation.route_losses import losses_along
from routing_moe.io.accelerator import make_accelerator

ONE_HOT = one_hot_routes([[0, 1, 2, 0], [2, 2, 1, 1]], 3)


def slow_losses(model, examples, routes_KLE) -> np.ndarray:
    losses = [
        [slow_loss(model, examples, i, route_LE) for route_LE in routes_KLE] for i in range(len(examples))
    ]
    return np.array(losses)


def slow_loss(model, examples, i: int, route_LE) -> float:
    batch = examples.collate([i], pad_token_id=model.config.pad_token_id)
    labels = batch.pop("labels")
    del batch["task_ids"]
    start = model.config.decoder_start_token_id
    inputs = shift_tokens_right(labels, model.config.pad_token_id, start)
    with torch.no_grad():
        logits = model(**batch, decoder_input_ids=inputs, routes=route_LE[None]).logits
    return float(F.cross_entropy(logits[0], labels[0], reduction="sum"))


@pytest.mark.parametrize("mixing", ["outputs", "parameters"])
@pytest.mark.parametrize("soft", [False, True])
def test_losses_equal_those_of_one_example_and_one_route_at_a_time(make_model, examples, mixing, soft):
    model = make_model(route_source="average", expert_mixing=mixing).eval()
    routes_KLE = torch.rand(2, 4, 3, dtype=torch.float64).softmax(dim=-1) if soft else ONE_HOT
    losses_RK = losses_along(model, examples, routes_KLE, make_accelerator("no"))
    np.testing.assert_allclose(losses_RK, slow_losses(model, examples, routes_KLE), rtol=1e-9)
