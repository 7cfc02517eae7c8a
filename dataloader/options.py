"""The answers that a task lets choose from, if it does: what ranking options needs.

    "field"    the examples' own `options`, which a JSON-lines file gives
    "input"    a list in the input: "(A) first (B) second ..." or "(a) first (b) second ..."
    "labels"   a classification task's labels, the same for every example
    None       nothing to choose from: such a task's answers are generated

Which one holds is decided from train files alone: an answer of a dev or test file is never looked at.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dataloader.gym import Example, Gym

SOURCES = ("field", "input", "labels")

# Lists in the input count if they hold an accepted answer of so many train examples. In the CrossFit tasks
# with such lists it is all of them or, where the answer is something else (an explanation, several of the
# options), less than a third.
LEAST_LISTED = 0.95

# First answers are labels if metric and counts say so. Of other tasks with these metrics, every label has
# less than 2 train examples on average, and two fifths of the examples or more have an answer of their own.
LABEL_METRICS = ("ACC", "EM", "Classification-F1", "Matthew-Correlation")
LEAST_PER_LABEL = 5  # different train examples, on average
MOST_UNSEEN = 0.02  # estimated share of new examples whose answer is none of the labels

_LETTER = re.compile(r"\(([A-Za-z])\)")
# A line break may be written out as backslash and n, as in UnifiedQA's files; but not "\neq".
_END = re.compile(r"\[SEP\]|\n|\\n(?![A-Za-z])|\bcontext:")


@dataclass(frozen=True)
class OptionSource:
    """Where a task's options come from. name: one of SOURCES or None; labels: those of a "labels" task."""

    name: str | None = None
    labels: tuple[str, ...] = ()

    def options(self, example: Example) -> tuple[str, ...]:
        """At least two different answers to choose from, in their own order (labels: in the alphabet's).

        () where there are none: with source None, and for an example that lacks what the others of the
        task have, an `options` field or a list that can be read. Its answer is to be generated.
        """
        if self.name == "field":
            return example.options
        return listed_options(example.input) if self.name == "input" else self.labels


def find_options(task: str, metric: str, gyms: Sequence[Gym], scored: Sequence[Example] = ()) -> OptionSource:
    """The source of a task's options, from the train files of the first gym that has some.

    A task without train files has options if all its `scored` examples carry them. Raises InputError for
    train files that are malformed or missing for some samples only.
    """
    for gym in gyms:
        if gym.has_part(task, "train"):
            return option_source(gym.examples(task, "train", "all"), metric)
    return OptionSource("field") if scored and all(example.options for example in scored) else OptionSource()


def option_source(train: Sequence[Example], metric: str) -> OptionSource:
    """The source that fits the train examples of a task, which is scored by `metric`."""
    if not train:
        return OptionSource()
    if all(example.options for example in train):
        return OptionSource("field")
    listed = [set(listed_options(example.input)) & set(example.outputs) for example in train]
    if sum(map(bool, listed)) >= LEAST_LISTED * len(train):
        return OptionSource("input")
    labels = label_set(train) if metric in LABEL_METRICS else ()
    return OptionSource("labels", labels) if labels else OptionSource()


def listed_options(text: str) -> tuple[str, ...]:
    """The different options of the longest list "(A) ... (B) ..." in a text (of equals the last), or ().

    A list starts at A or a and goes on letter by letter; other letters in brackets belong to the text. An
    option ends at the next letter, at [SEP], at a line break, at "context:" or with the text. A list with
    an empty option, or with less than two different ones, is none.
    """
    longest: list[re.Match] = []
    run: list[re.Match] = []
    for match in _LETTER.finditer(text):
        if match[1] in "Aa":
            run = [match]
        elif run and ord(match[1]) == ord(run[0][1]) + len(run):
            run.append(match)
        if len(run) >= len(longest):
            longest = run
    ends = [match.start() for match in longest[1:]] + [len(text)]
    options = [_END.split(text[m.end() : end])[0].strip() for m, end in zip(longest, ends, strict=False)]
    different = tuple(dict.fromkeys(options))
    return different if len(different) > 1 and all(options) else ()


def label_set(train: Sequence[Example]) -> tuple[str, ...]:
    """The different first answers in the alphabet's order if they are few enough to be labels, else ().

    A row that several samples drew counts once. The share of new examples that would have an unseen answer
    is estimated by the share of examples whose answer occurs once (Good 1953, Biometrika 40, section 2).
    """
    rows = {(example.input, example.outputs[0]) for example in train}
    counts = Counter(answer for _, answer in rows)
    once = sum(count == 1 for count in counts.values())
    few = len(counts) > 1 and len(rows) >= LEAST_PER_LABEL * len(counts)
    return tuple(sorted(counts)) if few and once <= MOST_UNSEEN * len(rows) else ()
