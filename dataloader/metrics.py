"""The seven metrics of the CrossFit tasks, and the metric of each task.

    evaluate(["Paris", "no"], [["Paris", "paris, France"], ["yes"]], "EM")  ->  0.5

Predictions are model output: any string (empty, only punctuation, not a number) gets a finite score.
Answers are data: an answer that cannot be used raises an InputError that names it.
"""

import math
import re
import string
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from numbers import Number
from pathlib import Path
from textwrap import shorten

import numpy as np

from dataloader.errors import InputError, did_you_mean
from dataloader.jsonfile import load_json_object

METRICS: dict[str, str] = load_json_object(Path(__file__).parent / "metrics.json", "the metric of each task")

# Replaces a prediction that is not a finite number: the middle of the 1 to 5 scale of the rating tasks.
FALLBACK_RATING = 3.0

# Keeps the Rouge F-score finite when precision and recall are 0; part of the published numbers.
ROUGE_EPSILON = 1e-8

Answers = Sequence[Sequence[str]]


def evaluate(predictions: Sequence[str], answers: Answers, metric: str) -> float:
    """Returns the score of N predictions against N lists of accepted answers, a finite float.

    EM, ACC, QA-F1 and Rouge-L are means over examples in 0..1: each example counts with its best accepted
    answer, and with 0 if it has none. Classification-F1 is a macro F1 in 0..1, the other two metrics are
    correlations in -1..1; these three use the first accepted answer only. Raises ValueError or InputError.
    """
    if metric not in METRIC_FUNCTIONS:
        known = ", ".join(METRIC_FUNCTIONS)
        raise InputError(
            f"unknown metric '{metric}'{did_you_mean(metric, METRIC_FUNCTIONS)} (known: {known})"
        )
    if len(predictions) != len(answers):
        raise ValueError(f"{len(predictions)} predictions for {len(answers)} lists of answers")
    if len(predictions) == 0:
        raise InputError(f"nothing to evaluate: {metric} of 0 predictions is not defined")
    if any(isinstance(accepted, str) for accepted in answers):
        raise InputError("the answers of an example are a string, expected a list of strings")
    value = METRIC_FUNCTIONS[metric](predictions, answers)
    if getattr(value, "ndim", None) == 0:  # of numpy or torch
        value = value.item()
    try:
        number = float(value) if isinstance(value, Number) and not isinstance(value, bool) else math.nan
    except (OverflowError, TypeError, ValueError):  # of 10**400, of a complex number
        number = math.nan
    if not math.isfinite(number):
        shown = shorten(repr(value), 80)
        raise InputError(f"the metric {metric} returned {shown}; it must return one finite number")
    return number


def answer_problem(answer: str, metric: str | None) -> str | None:
    """Returns why the metric cannot use this first answer, or None if it can."""
    if metric == "Pearson-Correlation" and _number(answer) is None:
        return f"the answer {answer!r} is not a number, which {metric} needs"
    return None


# ---------------------------------------------------------------------------- mean over examples


def exact_match(prediction: str, answer: str) -> float:
    """Returns 1.0 if both are equal after `normalize_answer`, else 0.0."""
    return float(normalize_answer(prediction) == normalize_answer(answer))


def accuracy(prediction: str, answer: str) -> float:
    """Returns 1.0 if both are equal up to letter case, else 0.0. Spaces and punctuation matter."""
    return float(prediction.lower() == answer.lower())


def token_f1(prediction: str, answer: str) -> float:
    """Returns the F1 score of the two bags of normalised words (SQuAD); 0.0 if they share no word."""
    predicted, expected = normalize_answer(prediction).split(), normalize_answer(answer).split()
    shared = (Counter(predicted) & Counter(expected)).total()
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(expected)
    return 2 * precision * recall / (precision + recall)


def rouge_l(prediction: str, answer: str) -> float:
    """Returns the Rouge-L F1 score (summary level, over sets of words) of the PyPI package `rouge` 1.0.1.

    Sentences end at full stops. The overlap is the number of different words in the union of the longest
    common subsequences of each answer sentence with each predicted sentence; precision and recall divide
    it by the number of different words in the prediction and in the answer. Letter case and commas matter.

    Returns 0.0 where that package raises (an answer that is empty or only full stops) and for a prediction
    that is empty or only ASCII punctuation. A perfect score is 0.999999995: see ROUGE_EPSILON.
    """
    if not _without_punctuation(prediction):
        return 0.0
    predicted, expected = _sentences(prediction), _sentences(answer)
    n_predicted = len({word for sentence in predicted for word in sentence})
    n_expected = len({word for sentence in expected for word in sentence})
    overlap: set[str] = set()
    for expected_sentence in expected:
        for predicted_sentence in predicted:
            overlap.update(_longest_common_subsequence(expected_sentence, predicted_sentence))
    if not overlap:
        return 0.0
    precision, recall = len(overlap) / n_predicted, len(overlap) / n_expected
    return 2 * precision * recall / (precision + recall + ROUGE_EPSILON)


def normalize_answer(text: str) -> str:
    """Returns the text in lower case, without ASCII punctuation and articles, with single spaces (SQuAD)."""
    text = re.sub(r"\b(?:a|an|the)\b", " ", _without_punctuation(text.lower()))
    return " ".join(text.split())


_PUNCTUATION_TO_NOTHING = str.maketrans("", "", string.punctuation)


def _without_punctuation(text: str) -> str:
    return text.translate(_PUNCTUATION_TO_NOTHING)


def _sentences(text: str) -> list[list[str]]:
    # Spaces between two full stops are a sentence of one empty word: the `rouge` package counts it too,
    # and the scores must agree.
    return [" ".join(piece.split()).split(" ") for piece in text.split(".") if piece]


def _longest_common_subsequence(a: list[str], b: list[str]) -> list[str]:
    """Returns the words of a longest common subsequence; among several, the one that `rouge` selects.

    Row i of the table is the maximum of "skip a[i]" and "match a[i]", then a running maximum for "skip
    b[j]". This takes one array operation per row and no recursion, so texts may have thousands of words.
    """
    number = {word: index for index, word in enumerate(dict.fromkeys(b))}
    b_numbers = np.array([number[word] for word in b])
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=np.int32)
    for i, word in enumerate(a):
        matched = table[i, :-1] + (b_numbers == number.get(word, -1))
        np.maximum.accumulate(np.maximum(table[i, 1:], matched), out=table[i + 1, 1:])
    words, i, j = [], len(a), len(b)
    while i and j and table[i, j]:
        if a[i - 1] == b[j - 1]:
            words.append(a[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1, j] > table[i, j - 1]:
            i -= 1
        else:
            j -= 1
    return words


def _mean_of_best(score: Callable[[str, str], float]) -> Callable[[Sequence[str], Answers], float]:
    def mean_of_best(predictions: Sequence[str], answers: Answers) -> float:
        best = [
            max((score(prediction, answer) for answer in accepted), default=0.0)
            for prediction, accepted in zip(predictions, answers, strict=True)
        ]
        return float(np.mean(best))

    return mean_of_best


# ---------------------------------------------------------------------------- over the whole set


def classification_f1(predictions: Sequence[str], answers: Answers) -> float:
    """Returns macro F1 over all labels that occur in the predictions or the first accepted answers.

    A label that only the model produced is a class with F1 0 and lowers the score. Letter case matters.
    """
    from sklearn.metrics import f1_score  # imported here because it is slow and rarely needed

    expected = _first_answers(answers)
    with warnings.catch_warnings():  # many classes and labels that are never predicted are normal here
        warnings.simplefilter("ignore")
        return float(f1_score(expected, list(predictions), average="macro", zero_division=0.0))


def matthews_correlation(predictions: Sequence[str], answers: Answers) -> float:
    """Returns the Matthews correlation of predictions and first accepted answers.

    Spaces around a prediction are ignored. If "acceptable" (CoLA) is among the first answers, there are two
    classes, "acceptable" and any other text, as published; otherwise each label is a class. Returns 0.0 if
    all predictions or all first answers are equal, as they are with a single example.
    """
    from sklearn.metrics import matthews_corrcoef

    expected, predicted = _first_answers(answers), [prediction.strip() for prediction in predictions]
    if "acceptable" in expected:
        expected, predicted = (
            [str(label == "acceptable") for label in labels] for labels in (expected, predicted)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(matthews_corrcoef(expected, predicted))


def pearson_correlation(predictions: Sequence[str], answers: Answers) -> float:
    """Returns the Pearson correlation of predictions and first accepted answers, both read as numbers.

    A prediction that is not a finite number ("good", "", "nan", "inf") counts as FALLBACK_RATING. Returns
    0.0 where the correlation is undefined: all predictions equal, all answers equal, a single example.
    Raises InputError for an answer that is not a finite number.
    """
    from scipy.stats import pearsonr

    expected = [_number(answer) for answer in _first_answers(answers)]
    for index, (number, accepted) in enumerate(zip(expected, answers, strict=True)):
        if number is None:
            raise InputError(
                f"the answer of example {index} is {accepted[0]!r}: Pearson-Correlation needs a number"
            )
    predicted = [FALLBACK_RATING if (number := _number(text)) is None else number for text in predictions]
    if len(set(predicted)) == 1 or len(set(expected)) == 1:
        return 0.0
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        correlation = float(pearsonr(expected, predicted)[0])
    return correlation if math.isfinite(correlation) else 0.0  # numbers near the largest float overflow


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _first_answers(answers: Answers) -> list[str]:
    for index, accepted in enumerate(answers):
        if not accepted:
            raise InputError(f"example {index} has no accepted answer to score against")
    return [accepted[0] for accepted in answers]


METRIC_FUNCTIONS: dict[str, Callable[[Sequence[str], Answers], float]] = {
    "EM": _mean_of_best(exact_match),
    "ACC": _mean_of_best(accuracy),
    "QA-F1": _mean_of_best(token_f1),
    "Rouge-L": _mean_of_best(rouge_l),
    "Classification-F1": classification_f1,
    "Matthew-Correlation": matthews_correlation,
    "Pearson-Correlation": pearson_correlation,
}
