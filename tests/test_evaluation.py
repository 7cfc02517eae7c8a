"""Evaluation of all files together: answers, option scores and loss of each example alone; its batches."""

import math

import numpy as np
import pytest
import torch
from conftest import one_hot_routes
from tiny_steps import LONGEST, ROUTES, Words, accelerator, file_of, slow_losses

from routing_moe.evaluation import batches
from routing_moe.evaluation.route_losses import losses_along, losses_of_files
from routing_moe.evaluation.scored_files import Decoding, Pool
from routing_moe.evaluation.scoring import answer, generation_limits
from routing_moe.io.accelerator import make_accelerator

FILES = [file_of("a", 7), file_of("b", 3, n_options=3), file_of("c", 9, n_options=4), file_of("a", 5)]


def one_hot_and_soft() -> torch.Tensor:
    """Returns routes (N, L, E) of four tasks: those of a and c one-hot and equal, b's soft, d's one-hot."""
    routes_NLE = torch.zeros(4, 4, 3, dtype=torch.float64)
    routes_NLE[[0, 2], :, 1] = 1
    routes_NLE[1] = torch.tensor([0.2, 0.3, 0.5])
    routes_NLE[3, :, 2] = 1
    return routes_NLE


MODELS = ROUTES | {"one-hot and soft": dict(route_source="fixed")}


def model_of(make_model, kind: str):
    torch.manual_seed(2)
    model = make_model(bart_fields=dict(init_std=0.8), **MODELS[kind])
    if kind == "one-hot and soft":
        model.use_routes("fixed", one_hot_and_soft())
    model.final_logits_bias[0, 2] = 8.0  # so that answers end at different lengths
    return model


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_answers_of_all_files_together_are_those_of_each_example_alone(make_model, monkeypatch, kind):
    monkeypatch.setattr(batches, "LONG_EXAMPLE", 120)
    model, num_beams = model_of(make_model, kind), 3 if kind in ("one-hot", "average") else 1
    decoding = Decoding(num_beams=num_beams, max_output_length=LONGEST, batch_size=6, random_draws=2)
    limits = generation_limits(model.config, decoding, Words())
    found = answer(model, Words(), FILES, decoding, accelerator())
    lengths = set()
    for file, draws in zip(FILES, found, strict=True):
        all_routes = list(batches.routes_of_file(model, file, decoding))
        assert len(draws) == len(all_routes) == (2 if "random" in kind else 1)
        for answers, routes in zip(draws, all_routes, strict=True):
            assert answers.option_scores == [None] * len(file.examples)
            for i, text in list(enumerate(answers.texts))[::5]:
                source = torch.tensor(file.encoded.sources[i][None].tolist())
                along = routes[[i if len(routes) > 1 else 0]]
                alone = model.generate(source, routes=along, use_cache=False, **limits)
                assert text == Words().batch_decode(alone)[0]
                lengths.add(len(text.split()))
    assert len(lengths) > 1


@pytest.mark.parametrize(
    "kind", ["one-hot and soft", "random for each example", "merged parameters", "a vanilla layer"]
)
@torch.no_grad()
def test_losses_of_all_files_together_are_those_of_each_example_alone(make_model, monkeypatch, kind):
    monkeypatch.setattr(batches, "LONG_EXAMPLE", 120)
    model, decoding = model_of(make_model, kind), Decoding(batch_size=6, random_draws=2)
    expected = []
    for file in FILES:
        of_file, all_routes = np.zeros(3), list(batches.routes_of_file(model, file, decoding))
        for routes in all_routes:
            for i in range(len(file.examples)):
                batch = file.encoded.collate([i], pad_token_id=1)
                inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
                found = model(**inputs, routes=routes[[i if len(routes) > 1 else 0]])
                loss = torch.nn.functional.cross_entropy(found.logits[0], batch["labels"][0], reduction="sum")
                of_file += [float(loss), float(found.loss), len(batch["labels"][0])]
        expected.append([*of_file / len(all_routes), len(file.examples)])
    found = losses_of_files(model, FILES, decoding, accelerator())
    sums = [[*(values.sum() for values in of_file.values()), len(of_file["loss"])] for of_file in found]
    np.testing.assert_allclose(sums, expected, rtol=1e-11)


def groups_of(model, files=FILES) -> list[tuple[bool, list[int]]]:
    """Returns pairs of whether a plain BART answers, and the indices of its examples."""
    pool = Pool(files)
    (routes, *_) = batches.draws_of(model, pool, Decoding(), accelerator())
    return [
        (route is not None, own.tolist())
        for route, own in batches.by_route(model, routes, np.arange(len(pool)), batches.ENOUGH_ON_CPU)
    ]


def test_examples_of_equal_routes_share_a_plain_bart_and_others_the_routing_model(make_model):
    everything = list(range(24))
    assert groups_of(make_model(num_experts=1)) == [(True, everything)]
    assert groups_of(make_model(router_mode="softmax")) == [(False, everything)]
    assert groups_of(make_model(route_source="random")) == [(False, everything)]
    soft = [7, 8, 9]
    a_and_c = [i for i in everything if i not in soft]
    assert groups_of(model_of(make_model, "one-hot and soft")) == [(True, a_and_c), (False, soft)]
    merged = groups_of(model_of(make_model, "merged parameters"))
    assert [plain for plain, _ in merged] == [True] * 3
    assert sorted(len(own) for _, own in merged) == [3, 9, 12]


def test_the_plain_bart_of_a_route_is_assembled_once(make_model, monkeypatch):
    monkeypatch.setattr(batches, "LONG_EXAMPLE", 30)
    model, assembled = model_of(make_model, "merged parameters"), []
    to_plain = model.to_plain
    model.to_plain = lambda route: assembled.append(route) or to_plain(route)
    answer(model, Words(), FILES, Decoding(num_beams=1, max_output_length=3, batch_size=2), accelerator())
    assert len(assembled) == 3


def test_batches_have_every_example_once_and_stay_within_the_tokens():
    lengths = np.array([9, 2, 3, 8, 30, 2, 2])
    order = np.argsort(-lengths, kind="stable")
    found = list(batches.cut(order, lengths, 17, 99))
    assert [batch.tolist() for batch in found] == [[4], [0], [3, 2], [1, 5, 6]]
    assert list(batches.cut(order[:0], lengths, 17, 99)) == []
    assert max(map(len, batches.cut(order, lengths, 10**6, 2))) == 2


def test_shorter_examples_are_answered_more_at_a_time_with_the_same_memory(make_model):
    files = [file_of("a", 40)]
    pool, model = Pool(files), make_model(num_experts=1)
    draws = batches.draws_of(model, pool, Decoding(), accelerator())
    found = batches.answering_batches(model, pool, draws, Decoding(max_output_length=LONGEST), 1)
    longest = pool.encoded.source_lengths_N.max() + LONGEST
    assert len(found) == math.ceil(40 / min(batches.LONG_EXAMPLE // longest, batches.SHORT_PER_LONG))
    for batch in found:
        widest = pool.encoded.source_lengths_N[batch.indices].max() + LONGEST
        assert len(batch.indices) * widest <= batches.LONG_EXAMPLE


@pytest.mark.parametrize("scoring", ["generate", "rank"])
def test_a_batch_that_runs_out_of_memory_is_answered_in_halves(make_model, monkeypatch, scoring):
    files, model = FILES[2:3], make_model(router_mode="softmax")
    decoding = Decoding(num_beams=1, max_output_length=4, scoring=scoring, batch_size=1)
    expected = answer(model, Words(), files, decoding, accelerator())
    (losses,) = losses_of_files(model, files, decoding, accelerator())
    forward, sizes = model.model.encoder.forward, []

    def limited(*args, **kwargs):
        sizes.append(len(kwargs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.model.encoder, "forward", limited)
    monkeypatch.setattr(batches, "SHORT_PER_LONG", 4)
    monkeypatch.setattr(batches, "release_memory", lambda: None)  # of Python, which takes longer
    halved = answer(model, Words(), files, decoding, accelerator())
    assert [draws[0].texts for draws in halved] == [draws[0].texts for draws in expected]
    assert sum(size > 2 for size in sizes) == 1, "the batches after it are halved at once"
    (found,) = losses_of_files(model, files, decoding, accelerator())
    np.testing.assert_allclose([*found.values()], [*losses.values()], rtol=1e-11)


ONE_HOT = one_hot_routes([[0, 1, 2, 0], [2, 2, 1, 1]], 3)


@pytest.mark.parametrize("mixing", ["outputs", "parameters"])
@pytest.mark.parametrize("soft", [False, True])
def test_losses_equal_those_of_one_example_and_one_route_at_a_time(make_model, examples, mixing, soft):
    model = make_model(route_source="average", expert_mixing=mixing).eval()
    routes_KLE = torch.rand(2, 4, 3, dtype=torch.float64).softmax(dim=-1) if soft else ONE_HOT
    losses_RK = losses_along(model, examples, routes_KLE, make_accelerator("no"))
    np.testing.assert_allclose(losses_RK, slow_losses(model, examples, routes_KLE), rtol=1e-9)
