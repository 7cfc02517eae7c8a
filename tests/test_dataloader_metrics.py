"""Metrics: hand-computed numbers, agreement with the published code, and arbitrary predictions."""

import json
import math
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from dataloader import METRIC_FUNCTIONS, evaluate
from dataloader.metrics import normalize_answer, rouge_l

STRANGE = ["", " ", ".", "!?", "nan", "inf", "1e999", "1e308", "\u2028", "東京", "the", "a\tb\n", "0x5"]


@pytest.mark.parametrize(
    ("metric", "predictions", "answers", "expected"),
    [
        ("EM", ["The Cat!", "dog"], [["cat"], ["cat", "a dog."]], 1.0),
        ("EM", ["cat", "dog"], [["cat"], ["cat"]], 0.5),
        ("ACC", ["PARIS", "Paris."], [["paris"], ["paris"]], 0.5),
        # 2 of 3 predicted and 2 of 4 expected words shared: P 2/3, R 1/2, F 4/7. Best of two answers.
        ("QA-F1", ["blue fast car"], [["car blue or red", "bus"]], 4 / 7),
        # pos: P 1, R 1/2, F 2/3; neg: 1; "maybe" occurs in predictions only: 0.
        ("Classification-F1", ["pos", "neg", "maybe"], [["pos"], ["neg"], ["pos"]], (2 / 3 + 1 + 0) / 3),
        # TP 1, FP 0, FN 1, TN 2: (1*2 - 0*1) / sqrt(1*2*2*3)
        (
            "Matthew-Correlation",
            [" acceptable", "unacceptable", "", "no"],
            [["acceptable"], ["acceptable"], ["unacceptable"], ["unacceptable"]],
            2 / math.sqrt(12),
        ),
        # Deviations (-1, 0, 1) and (-1, 1, 0): 1 / sqrt(2 * 2)
        ("Pearson-Correlation", ["1", "3", "2"], [["1"], ["2"], ["3"]], 0.5),
        # "bad" counts as 3: deviations (-1, 0, 1) and (-4/3, 2/3, 2/3)
        ("Pearson-Correlation", ["1", "bad", "inf"], [["1"], ["2"], ["3"]], 2 / math.sqrt(2 * 24 / 9)),
        # LCS "the cat mat", 3 of 4 words each
        ("Rouge-L", ["the cat on mat"], [["the cat the sat mat"]], 2 * 0.75 * 0.75 / (1.5 + 1e-8)),
    ],
)
def test_scores_equal_hand_computed_ones(metric, predictions, answers, expected):
    assert evaluate(predictions, answers, metric) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", METRIC_FUNCTIONS)
def test_no_prediction_raises_warns_or_gives_nan(metric):
    answer = "3.5" if metric == "Pearson-Correlation" else "acceptable"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for prediction in STRANGE:
            assert math.isfinite(evaluate([prediction], [[answer]], metric))
            assert math.isfinite(evaluate([prediction] * 3, [[answer], ["2"], ["4"]], metric))
        score = evaluate(STRANGE, [[answer]] * (len(STRANGE) - 1) + [["2"]], metric)
    assert type(score) is float
    assert -1.0 <= score <= 1.0


def test_a_correlation_of_constant_values_is_zero():
    for metric, answers in (
        ("Pearson-Correlation", [["1"], ["2"]]),
        ("Matthew-Correlation", [["acceptable"], ["unacceptable"]]),
    ):
        assert evaluate([answers[0][0]] * 2, answers, metric) == 0.0
        assert evaluate([answers[0][0], answers[1][0]], [answers[0]] * 2, metric) == 0.0
        assert evaluate([answers[0][0]], answers[:1], metric) == 0.0


def test_rouge_scores_texts_of_thousands_of_words():
    words = [f"w{number % 997}" for number in range(3000)]
    assert rouge_l(" ".join(words), " ".join(words)) == pytest.approx(1.0, abs=1e-8)
    assert 0.0 < rouge_l(" ".join(words), " ".join(reversed(words))) < 1.0


@pytest.mark.parametrize(
    ("predictions", "answers", "metric", "message"),
    [
        (["a"], [["a"]], "accuracy-f2", "unknown metric 'accuracy-f2'.*known: EM, ACC"),
        (["a"], [["a"], ["b"]], "EM", "1 predictions for 2"),
        ([], [], "EM", "nothing to evaluate"),
        (["a"], ["a"], "EM", "expected a list"),
        (["1", "2"], [["nan"], ["1"]], "Pearson-Correlation", "answer of example 0 is 'nan'"),
        (["1"], [[]], "Classification-F1", "example 0 has no accepted answer"),
    ],
)
def test_unusable_answers_and_metric_names_have_clear_errors(predictions, answers, metric, message):
    with pytest.raises(ValueError, match=message):
        evaluate(predictions, answers, metric)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, [0.5], None, True, "0.5", np.array([0.5]), 10**400, 1j]
)
def test_a_metric_that_returns_no_finite_number_is_named(value, monkeypatch):
    monkeypatch.setitem(METRIC_FUNCTIONS, "mine", lambda *_: value)
    with pytest.raises(ValueError, match=r"the metric mine returned .*; it must return one"):
        evaluate(["a"], [["a"]], "mine")


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), torch.tensor(0.5), Fraction(1, 2), Decimal(1)])
def test_a_metric_may_return_any_number(value, monkeypatch):
    monkeypatch.setitem(METRIC_FUNCTIONS, "mine", lambda *_: value)
    assert (score := evaluate(["a"], [["a"]], "mine")) == value
    assert type(score) is float


# ---------------------------------------------------------------------------- the published code's numbers


@pytest.fixture(scope="module")
def published(published_numbers):
    return json.loads((published_numbers / "metrics.json").read_text())


def test_normalisation_equals_the_published_one(published):
    assert all(normalize_answer(text) == expected for text, expected in published["normalize_answer"])


@pytest.mark.parametrize("metric", ["EM", "ACC", "QA-F1", "Rouge-L"])
def test_text_scores_equal_the_published_ones(published, metric):
    for case, expected in zip(published["text_cases"], published["per_case"][metric], strict=True):
        score = evaluate([case["prediction"]], [case["answers"]], metric)
        if "raises" in expected:
            assert 0.0 <= score <= 1.0
        else:
            assert score == expected["value"], case
    whole = published["whole"][metric]
    cases = [published["text_cases"][index] for index in whole["cases"]]
    score = evaluate([case["prediction"] for case in cases], [case["answers"] for case in cases], metric)
    assert score == pytest.approx(whole["value"], abs=1e-12)


@pytest.mark.parametrize("metric", ["Classification-F1", "Matthew-Correlation", "Pearson-Correlation"])
def test_set_scores_equal_the_published_ones_if_those_are_finite(published, metric):
    for case in published["sets"][metric]:
        if isinstance(case.get("value"), float):
            score = evaluate(case["predictions"], case["answers"], metric)
            assert score == pytest.approx(case["value"], abs=1e-12), case


def test_matthews_correlation_uses_all_labels_except_for_cola():
    answers = [["positive"], ["negative"], ["positive"], ["negative"]]
    assert evaluate(["positive", " negative", "positive", "negative"], answers, "Matthew-Correlation") == 1.0
    # one of four wrong: tp 1, fn 1, tn 2, fp 0 -> 2 / sqrt(1 * 2 * 2 * 3)
    one_wrong = evaluate(["positive", "negative", "negative", "negative"], answers, "Matthew-Correlation")
    assert one_wrong == pytest.approx(2 / 12**0.5)
    assert evaluate(["x", "y", "x", "y"], [["positive"]] * 4, "Matthew-Correlation") == 0.0
