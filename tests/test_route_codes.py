"""Codewords for clusters: distances by brute force, use of symbols, errors; routes composed of them."""

from itertools import combinations, product

import numpy as np
import pytest

from dataloader.errors import InputError
from routing_moe.model import route_codes
from routing_moe.model.given_routes import GivenRoutes
from routing_moe.model.route_codes import codewords, minimum_distance

SIZES = [
    (1, 3, 2),
    (2, 4, 4),
    (3, 3, 2),
    (4, 3, 2),
    (9, 4, 3),
    (12, 4, 4),
    (16, 4, 5),
    (16, 8, 2),
    (30, 5, 4),
]


def distance(words) -> int:
    return min(sum(a != b for a, b in zip(*pair, strict=True)) for pair in combinations(words, 2))


@pytest.mark.parametrize(("count", "length", "symbols"), SIZES)
def test_words_are_different_and_use_every_symbol_in_every_layer(count, length, symbols):
    words = codewords(count, length, symbols).tolist()
    assert np.shape(words) == (count, length)
    assert all(0 <= symbol < symbols for word in words for symbol in word)
    assert len(set(map(tuple, words))) == count
    reached = minimum_distance(np.array(words))
    assert reached == (distance(words) if count > 1 else length)
    for column in zip(*words, strict=True):
        assert len(set(column)) == min(count, symbols)  # every expert is used


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((16, 4, 4), 3),
        ((16, 5, 4), 4),
        ((9, 4, 3), 3),
        ((4, 3, 2), 2),
        ((16, 8, 2), 4),
        ((4, 7, 4), 7),
        ((16, 2, 4), 1),
    ],
)
def test_distances_of_known_codes_are_reached(size, expected):
    assert distance(codewords(*size).tolist()) == expected


@pytest.mark.parametrize("size", [(4, 2, 2), (3, 3, 2), (5, 3, 2), (5, 2, 3), (4, 2, 3)])
def test_no_code_of_a_small_size_has_a_larger_distance(size):
    count, length, symbols = size
    best = max(map(distance, combinations(product(range(symbols), repeat=length), count)))
    assert distance(codewords(*size).tolist()) == best


@pytest.mark.parametrize("size", [(16, 4, 4), (8, 4, 4), (12, 4, 4), (9, 4, 3), (16, 2, 4), (16, 5, 4)])
def test_experts_of_a_layer_are_used_equally(size):
    count, _, symbols = size
    for column_K in codewords(*size).T:
        assert np.bincount(column_K).tolist() == [count // symbols] * symbols


def test_words_of_deep_models_are_chosen_from_a_sample():
    codewords.cache_clear()
    words_KL = codewords(16, 12, 4)
    assert minimum_distance(words_KL) >= 8
    for column_K in words_KL.T:
        assert np.bincount(column_K, minlength=4).min() >= 2
    codewords.cache_clear()
    assert np.array_equal(codewords(16, 12, 4), words_KL)  # deterministic
    assert minimum_distance(codewords(16, 64, 16)) >= 50  # 16^64 words


def test_a_small_sample_still_gives_enough_words(monkeypatch):
    codewords.cache_clear()
    monkeypatch.setattr(route_codes, "MOST_WORDS", 4)
    words = codewords(20, 5, 3).tolist()
    codewords.cache_clear()
    assert len(set(map(tuple, words))) == 20


def test_too_few_words_or_symbols_are_an_error():
    with pytest.raises(ValueError, match=r"there are only 2\^3 = 8 routes"):
        codewords(9, 3, 2)
    with pytest.raises(ValueError, match="words need at least 2 symbols, not 1"):
        codewords(1, 3, 1)


# ---- routes of clusters


def routes_of(parts, K):
    by_task = {f"task{k:02}": dict.fromkeys(parts, k) for k in range(K)}
    return GivenRoutes("clusters", by_task, clusters=({"part": "all"},))


def test_clusters_are_composed_only_if_there_are_more_of_them_than_experts():
    given = routes_of(["all"], 16)
    assert given.codes(2, 2, 16) == {}
    assert np.array_equal(given.matrices(2, 2, 16), np.eye(16)[np.arange(16)[:, None].repeat(4, 1)])
    experts_NL = given.matrices(2, 2, 4).argmax(-1)
    assert np.array_equal(experts_NL, codewords(16, 4, 4))
    described = given.codes(2, 2, 4)["all"].described()
    assert described == (
        "16 clusters composed of 4 experts per layer, any two share an expert in at most 1 of 4 layers"
    )


def test_each_part_is_composed_in_its_own_layers():
    by_task = {f"task{k}": {"encoder": k, "decoder": k % 2} for k in range(4)}
    given = GivenRoutes("clusters", by_task, clusters=({"part": "all"},))
    assert list(given.codes(3, 2, 2)) == ["encoder"]
    experts_NL = given.matrices(3, 2, 2).argmax(-1)
    assert np.array_equal(experts_NL[:, :3], codewords(4, 3, 2))
    assert experts_NL[:, 3:].tolist() == [[0, 0], [1, 1], [0, 0], [1, 1]]


def test_layers_without_experts_are_no_part_of_a_word():
    experts_NL = routes_of(["all"], 9).matrices(3, 3, 3, [0, 2, 3, 5]).argmax(-1)
    assert np.array_equal(experts_NL[:, [0, 2, 3, 5]], codewords(9, 4, 3))
    assert not experts_NL[:, [1, 4]].any()
    experts_NL = routes_of(["encoder", "decoder"], 4).matrices(2, 2, 2, [0, 1]).argmax(-1)
    assert np.array_equal(experts_NL[:, :2], codewords(4, 2, 2))
    assert not experts_NL[:, 2:].any()


def test_more_clusters_than_routes_are_an_error():
    with pytest.raises(
        InputError, match=r"^all layers: 9 clusters are too many for 2 experts per layer \(--num"
    ):
        routes_of(["all"], 9).matrices(2, 1, 2)
    with pytest.raises(InputError, match=r"there are only 2\^1 = 2 routes"):
        routes_of(["all"], 3).matrices(2, 1, 2, [1])
