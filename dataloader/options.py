"""Answer options of each task, for predictions by ranking options. Their source is one of

    "field"    the `options` of each example, from a JSON-lines file
    "input"    a list in the input: "(A) first (B) second ..." or "(a) first (b) second ..."
    "labels"   the labels of a classification task, the same for every example
    None       no options: answers must be generated

and is determined from train files only, never from answers in dev or test files.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dataloader.gym import Example, Gym
from dataloader.metrics import accuracy, exact_match

SOURCES = ("field", "input", "labels")

# Minimum share of train examples whose list in the input contains an accepted answer. In the CrossFit tasks
# with such lists it is 1 or, if the answer is something else (an explanation, several options), below 1/3.
LEAST_LISTED = 0.95

# First answers are labels if the metric is one of these and the two limits below hold. Other CrossFit tasks
# with these metrics have fewer than 2 train examples per answer, and at least 40% of their examples have an
# answer that occurs once.
LABEL_METRICS = ("ACC", "EM", "Classification-F1", "Matthew-Correlation")
LEAST_PER_LABEL = 5  # different train examples, on average
MOST_UNSEEN = 0.02  # estimated share of new examples whose answer is not among the labels

# Whether an option is an accepted answer, by metrics that count these; with other metrics as ACC.
ACCEPTS = {"EM": exact_match, "ACC": accuracy}

_LETTER = re.compile(r"\(([A-Za-z])\)")
# UnifiedQA's files write a line break as backslash and n; "\neq" is not a line break.
_END = re.compile(r"\[SEP\]|\n|\\n(?![A-Za-z])|\bcontext:")


@dataclass(frozen=True)
class OptionSource:
    """Source of a task's options. name: one of SOURCES or None; labels: the labels, if name is "labels"."""

    name: str | None = None
    labels: tuple[str, ...] = ()

    def options(self, example: Example) -> tuple[str, ...]:
        """Returns an example's options, at least two (labels: sorted); () if its answer must be generated."""
        if self.name == "field":
            return example.options
        return listed_options(example.input) if self.name == "input" else self.labels


def find_options(task: str, metric: str, gyms: Sequence[Gym], scored: Sequence[Example] = ()) -> OptionSource:
    """Returns the source of a task's options, from the train files of the first gym that has any.

    scored: examples to predict; if no gym has train files and all of these have options, it is "field".
    """
    for gym in gyms:
        if gym.has_part(task, "train"):
            return option_source(gym.examples(task, "train", "all"), metric)
    return OptionSource("field") if scored and all(example.options for example in scored) else OptionSource()


def option_source(train: Sequence[Example], metric: str) -> OptionSource:
    """Returns the source of options that fits the train examples of a task with this metric."""
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
    """Returns the different options of the longest list "(A) ... (B) ..." in a text, or ().

    Of lists of equal length the last one counts. Letters out of order are part of the text. An option ends at
    the next letter, at [SEP], at a line break, at "context:" or at the end of the text. A list with an empty
    option, or with fewer than two different options, is ignored.
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
    """Returns the different first answers, sorted, if they are few enough to be labels, else ().

    Rows that occur in several samples count once. The share of new examples with an unseen answer is
    estimated by the share of examples whose answer occurs once (Good 1953, Biometrika 40, section 2).
    """
    rows = {(example.whole_text, example.outputs[0]) for example in train}
    counts = Counter(answer for _, answer in rows)
    once = sum(count == 1 for count in counts.values())
    few = len(counts) > 1 and len(rows) >= LEAST_PER_LABEL * len(counts)
    return tuple(sorted(counts)) if few and once <= MOST_UNSEEN * len(rows) else ()


# ---- baselines


def option_metric(metric: str) -> str:
    """Returns the metric of chosen options in a task: its own if that is EM or ACC, else ACC."""
    return metric if metric in ACCEPTS else "ACC"


def chance(source: OptionSource, examples: Sequence[Example], metric: str) -> float | None:
    """Returns the mean share of accepted options, over the examples that have options; None without any."""
    accepts, shares = ACCEPTS[option_metric(metric)], {}
    pairs = [(source.options(example), example.outputs) for example in examples]
    for options, outputs in dict.fromkeys(pair for pair in pairs if pair[0]):
        accepted = [any(accepts(option, output) for output in outputs) for option in options]
        shares[options, outputs] = sum(accepted) / len(options)
    counted = [shares[pair] for pair in pairs if pair in shares]
    return sum(counted) / len(counted) if counted else None
