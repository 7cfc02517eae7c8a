"""Constant-answer baseline: the best that a model can do without reading the input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dataloader.gym import Example
from dataloader.metrics import evaluate


def constant_answer(train: Sequence[Example]) -> str:
    """Returns the most frequent first answer of the training examples (ties: the first in order)."""
    counts = Counter(example.outputs[0] for example in train)
    return min(counts, key=lambda answer: (-counts[answer], answer))


def constant_baseline(train: Sequence[Example], scored: Sequence[Example], metric: str) -> float:
    """Returns the metric of predicting `constant_answer(train)` for every scored example."""
    predictions = [constant_answer(train)] * len(scored)
    return evaluate(predictions, [list(example.outputs) for example in scored], metric)
