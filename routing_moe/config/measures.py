"""The measures that scores may have: a registry to which users add. A measure is a column of that name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import shorten

import numpy as np

from dataloader.errors import InputError
from dataloader.metrics import evaluate
from dataloader.options import option_metric

BASELINES = {"constant": "constant answer", "chance": "random option", "copy": "copied input"}


@dataclass(frozen=True)
class Scored:
    """What is known of the N examples of a task's file, along one draw of routes.

    metric: of the task. answers: the accepted ones of each example. predictions: the answers of the model.
    losses_N: losses of the first accepted answers in nats, without label smoothing, means over draws.
    tokens_N: their numbers of tokens. options: {option: mean log-probability per token} of each example, or
    None. What the measure does not need may be missing.
    """

    metric: str
    answers: list[list[str]]
    predictions: list[str] | None
    losses_N: np.ndarray | None
    tokens_N: np.ndarray | None
    options: Sequence[dict[str, float] | None]


@dataclass(frozen=True)
class Measure:
    """compute: returns the value of a file, or NaN if it has none. With random routes, the mean over draws counts.

    title: in tables, as "mean <title>". needs: what is computed for it: "answers" of the model, "losses" (a
    forward pass), scores of answer "options". baselines: those of BASELINES that it is compared with.
    """

    title: str
    compute: Callable[[Scored], float]
    needs: tuple[str, ...] = ("answers",)
    lower_is_better: bool = False
    baselines: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        return f"mean {self.title}{' (lower is better)' if self.lower_is_better else ''}"


def performance(scored: Scored) -> float:
    return evaluate(scored.predictions, scored.answers, scored.metric)


def answer_loss(scored: Scored) -> float:
    return scored.losses_N.sum() / scored.tokens_N.sum()


def rank_accuracy(scored: Scored) -> float:
    """Returns the share of the examples with options whose best option is accepted, by EM, or else ACC."""
    pairs = zip(scored.options, scored.answers, strict=True)
    best = [(max(options, key=options.get), answers) for options, answers in pairs if options]
    return evaluate(*zip(*best, strict=True), option_metric(scored.metric)) if best else np.nan


PERFORMANCE = "performance"  # the task's metric, which all scores of answers have
OF_LOSS, OF_OPTIONS = "loss of the answers in nats per token", "accuracy of the best-ranked option"
MEASURES = {
    PERFORMANCE: Measure("score", performance, baselines=tuple(BASELINES)),
    "answer_loss": Measure(OF_LOSS, answer_loss, needs=("losses",), lower_is_better=True),
    "rank_accuracy": Measure(OF_OPTIONS, rank_accuracy, needs=("options",), baselines=("chance",)),
}


def further(columns) -> list[str]:
    """Returns the measures among columns, without the performance."""
    return [name for name in MEASURES if name in columns and name != PERFORMANCE]


def words_of(measure: str) -> str:
    """Returns the name of a measure in logs."""
    return "score" if measure == PERFORMANCE else measure.replace("_", " ")


def needed(measures) -> set[str]:
    """Returns what must be computed for measures; nothing for unknown ones."""
    return {need for name in measures if name in MEASURES for need in MEASURES[name].needs}


def value_of(name: str, scored: Scored) -> float:
    """Returns the value of a measure. Raises InputError if it is not a number."""
    value = MEASURES[name].compute(scored)
    try:
        return float(value)
    except (TypeError, ValueError):
        what = f"the measure {name} returned {shorten(repr(value), 80)}"
        raise InputError(f"{what}; it must return a number") from None


def goodness(value: float, measure: str) -> float:
    """Returns a number that is the higher, the better: the value, or minus it where lower is better."""
    return -value if MEASURES[measure].lower_is_better else value
