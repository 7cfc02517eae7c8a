"""What a model must beat: the best that can be done without reading the input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dataloader.gym import Example
from dataloader.metrics import evaluate


def constant_answer(train: Sequence[Example]) -> str:
    """The most frequent first answer of the training examples (of several, the first in the alphabet)."""
    counts = Counter(example.outputs[0] for example in train)
    return min(counts, key=lambda answer: (-counts[answer], answer))


def constant_baseline(train: Sequence[Example], scored: Sequence[Example], metric: str) -> float:
    """The metric of giving `constant_answer(train)` to every scored example."""
    predictions = [constant_answer(train)] * len(scored)
    return evaluate(predictions, [list(example.outputs) for example in scored], metric)
