"""Predictions as files, and the scores of answers that need no model."""

import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, problem_context
from dataloader.gym import Example, Gym
from dataloader.metrics import evaluate
from dataloader.options import chance, find_options, option_source
from routing_moe.config.measures import BASELINES
from routing_moe.evaluation.scored_files import TaskFile


def write_predictions(
    folder: Path, prefix: str, files: list[TaskFile], predictions: list, option_scores: list | None = None
) -> None:
    """Writes `<prefix><sample>_<part>.jsonl` for each file: `prediction_lines` of its draws (usually one)."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, draws, scores in zip(files, predictions, option_scores or [None] * len(files), strict=True):
        lines = prediction_lines(file, draws, scores)
        write_text(folder / f"{prefix}{file.sample}_{file.part}.jsonl", lines)


def prediction_lines(file: TaskFile, draws: list, option_scores: list[dict | None] | None = None) -> str:
    """Returns JSON lines with input, prediction, answers; before, other_draws if there are any.

    option_scores: for each example {option: score} in the first draw, None if its answer was generated.
    """
    lines = []
    for i, example in enumerate(file.examples):
        first, *others = (texts[i] for texts in draws)
        line = {"input": example.input, "prediction": first, "answers": list(example.outputs)}
        line |= {"before": list(example.before)} if example.before else {}
        line |= {"other_draws": others} if others else {}
        line |= {"scores": option_scores[i]} if option_scores and option_scores[i] else {}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)


def baseline_scores(files: list[TaskFile], *gyms: Gym) -> pd.DataFrame:
    """Returns a row per file with the scores of answers that need no model: BASELINES.

    Training examples, and the options that they show, are of the first gym that has the task; without any,
    constant is empty. copy: the input. chance: `options.chance`.
    """
    train, options, rows = {}, {}, []
    for file in files:
        examples, metric = file.examples, file.metric
        if file.task not in train:
            shown = train[file.task] = training_examples(file.task, gyms)
            options[file.task] = (
                option_source(shown, metric) if shown else find_options(file.task, metric, (), examples)
            )
        shown = train[file.task]
        inputs, answers = [e.input for e in examples], [list(e.outputs) for e in examples]
        random = chance(options[file.task], examples, metric)
        with problem_context(f"task {file.task}: "):
            constant = evaluate([constant_answer(shown)] * len(examples), answers, metric) if shown else None
            rows.append(dict(constant=constant, chance=random, copy=evaluate(inputs, answers, metric)))
    return pd.DataFrame(rows, columns=list(BASELINES))


def training_examples(task: str, gyms: Sequence[Gym]) -> list[Example]:
    """Returns the task's training examples of the first gym that has readable ones, or []."""
    for gym in gyms:
        with contextlib.suppress(InputError):
            return gym.examples(task, "train", "all")
    return []


def constant_answer(train: Sequence[Example]) -> str:
    """Returns the most frequent first answer of the training examples (ties: the first in order)."""
    counts = Counter(example.outputs[0] for example in train)
    return min(counts, key=lambda answer: (-counts[answer], answer))
