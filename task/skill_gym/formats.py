"""Problems and the six surface formats that turn one into a row of a task.

A skill (`skills.py`) makes a `Problem`; a format writes it as text. A skill can be combined with any format
whose parts it fills in: unseen tasks are new combinations of seen skills and seen formats.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

GAP = "[BLANK]"


@dataclass(frozen=True)
class Problem:
    """One question with its answer, before it is formatted; parts that a skill does not need are empty.

    `answers` are the accepted answers, the first one is the training target; `wrong` are the other options
    of a multiple-choice question. `cloze` is a sentence with a gap, `statement` the second text of a pair,
    `command` the instruction for the context.
    """

    answers: tuple[str, ...]
    context: str = ""
    question: str = ""
    statement: str = ""
    cloze: str = ""
    command: str = ""
    wrong: tuple[str, ...] = ()


def labels(problem: Problem, rng: random.Random) -> str:
    """`<text>`, or `premise: <text> hypothesis: <text>`; the answer is a label word."""
    if problem.context and problem.statement:
        return f"premise: {problem.context} hypothesis: {problem.statement}"
    return problem.context or problem.statement


def pair(problem: Problem, rng: random.Random) -> str:
    """`<text> [SEP] <text>`; the answer is a label word for the relation of the two texts."""
    return f"{problem.context} [SEP] {problem.statement}"


def qa(problem: Problem, rng: random.Random) -> str:
    """`question: <question> context: <text>`, without the second part if the problem has no context."""
    question = f"question: {problem.question}"
    return f"{question} context: {problem.context}" if problem.context else question


def choice(problem: Problem, rng: random.Random) -> str:
    """`<text> <question> (A) <option> (B) <option> ..`; the answer is the text of the correct option."""
    options = [problem.answers[0], *problem.wrong]
    rng.shuffle(options)
    lettered = " ".join(f"({letter}) {option}" for letter, option in zip("ABCDEF", options, strict=False))
    return " ".join(part for part in (problem.context, problem.question, lettered) if part)


def fill(problem: Problem, rng: random.Random) -> str:
    """`<text> <sentence with a [BLANK]>`; the answer is the text that fills the blank."""
    return " ".join(part for part in (problem.context, problem.cloze) if part)


def command(problem: Problem, rng: random.Random) -> str:
    """`<instruction> : <text>`; the answer is the result of the instruction."""
    return f"{problem.command} : {problem.context}"


FORMATS: dict[str, Callable[[Problem, random.Random], str]] = {
    "labels": labels,
    "pair": pair,
    "qa": qa,
    "choice": choice,
    "fill": fill,
    "command": command,
}
