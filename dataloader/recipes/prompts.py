"""Prompts for the held-out data sets of T0 (Sanh et al. 2022) that the gym has: three of our own for each.

The task of a prompt is named <data set>__<prompt>. It has the rows, samples and splits of the data set's own
task, other texts, and the answer options in its files.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from dataloader.building.recipe import Recipe, Row, TextOf
from dataloader.building.text import choice

METRIC = "ACC"


@dataclass(frozen=True)
class Prompt:
    """input: the question. words: the answer of each label; or options: the texts to choose from, per row."""

    name: str
    input: TextOf
    words: tuple[str, ...] = ()
    options: Callable[[Row], list[str]] | None = None


def prompted(base: Recipe, label: Callable[[Row], int], prompts: Iterable[Prompt]) -> list[Recipe]:
    """Returns one recipe per prompt. label: index of the right option of a row."""

    def recipe(prompt: Prompt) -> Recipe:
        choices = prompt.options or (lambda _: list(prompt.words))

        def answer(row: Row) -> str:
            return choice(choices(row), label(row))

        return replace(
            base,
            task=f"{base.task}__{prompt.name}",
            input=prompt.input,
            output=answer,
            options=lambda row: list(dict.fromkeys(choices(row))),  # some endings of HellaSwag occur twice
            metric=METRIC,
        )

    return [recipe(prompt) for prompt in prompts]


def stripped(*names: str) -> Callable[[Row], list[str]]:
    """Returns a function that gives the texts of these columns, without outer white space."""
    return lambda row: [row[name].strip() for name in names]


def label_column(row: Row) -> int:
    return int(row["label"])


YES_NO = ("yes", "no")
NLI = ("yes", "maybe", "no")  # entailment, neutral, contradiction
CB = ("yes", "no", "maybe")  # SuperGLUE's order: entailment, contradiction, neutral
ENTAILMENT = (
    ("does_it_follow", 'Text: {premise} Does it follow from the text that "{hypothesis}"?'),
    ("is_it_right", '{premise} Judging from this alone, is it right to say: "{hypothesis}"?'),
    ("conclude", 'Premise: {premise} Can we conclude the sentence "{hypothesis}"?'),
)


def entailment(words: tuple[str, ...]) -> list[Prompt]:
    answers = ", ".join(words[:-1]) + f" or {words[-1]}"
    return [Prompt(name, f"{text} Answer {answers}.", words) for name, text in ENTAILMENT]


QUESTION = {"cause": "What was the cause?", "effect": "What happened as a result?"}
LINK = {"cause": "because", "effect": "so"}


def copa(question: Callable[[Row], str]) -> Callable[[Row], str]:
    return lambda row: f"{question(row)} Options: {row['choice1']} / {row['choice2']}"


COPA = [
    Prompt(name, copa(question), options=stripped("choice1", "choice2"))
    for name, question in (
        ("why_or_what_next", lambda row: f"{row['premise']} {QUESTION[row['question']]}"),
        ("connect", lambda row: f"{row['premise'].rstrip('.')} {LINK[row['question']]} ..."),
        ("pick_one", lambda row: f"Pick the more plausible {row['question']} of this: {row['premise']}"),
    )
]
WIC = [
    Prompt(
        "same_meaning",
        'Does "{word}" have the same meaning in both sentences? {sentence1} / {sentence2} Answer no or yes.',
        ("no", "yes"),
    ),
    Prompt(
        "same_sense",
        'A: {sentence1} B: {sentence2} The senses of "{word}" in A and B are: different or equal?',
        ("different", "equal"),
    ),
    Prompt(
        "dictionary",
        'Would a dictionary have "{word}" in one entry for both? {sentence1} | {sentence2} Answer no or yes.',
        ("no", "yes"),
    ),
]
WSC = [
    Prompt("refers_to", '{text} Does "{span2_text}" refer to {span1_text}? Answer no or yes.', ("no", "yes")),
    Prompt(
        "stands_for",
        'In the text below, "{span2_text}" stands for {span1_text}: false or true? {text}',
        ("false", "true"),
    ),
    Prompt(
        "replace",
        '{text} Could "{span1_text}" replace "{span2_text}" with the same meaning? Answer no or yes.',
        ("no", "yes"),
    ),
]
WINO_GRANDE = [
    Prompt(name, text, options=stripped("option1", "option2"))
    for name, text in (
        ("fill_in", "Fill in the blank: {sentence} Is it {option1} or {option2}?"),
        ("stands_for", "{sentence} What does _ stand for, {option1} or {option2}?"),
        ("choose", "Choose between {option1} and {option2} for the gap _ in: {sentence}"),
    )
]


def endings(row: Row) -> list[str]:
    return [ending.strip() for ending in row["endings"]]


HELLASWAG = [
    Prompt("what_next", "{ctx} What happens next?", options=endings),
    Prompt("continue", "Continue the story: {ctx}", options=endings),
    Prompt(
        "best_ending",
        lambda row: f"Which ending fits best? {row['ctx']} Endings: {' / '.join(endings(row))}",
        options=endings,
    ),
]

PROMPTS: dict[str, tuple[Callable[[Row], int], list[Prompt]]] = {
    "superglue-rte": (label_column, entailment(YES_NO)),
    "superglue-cb": (label_column, entailment(CB)),
    "anli": (label_column, entailment(NLI)),
    "superglue-copa": (label_column, COPA),
    "superglue-wic": (label_column, WIC),
    "superglue-wsc": (label_column, WSC),
    "wino_grande": (lambda row: int(row["answer"]) - 1, WINO_GRANDE),
    "hellaswag": (label_column, HELLASWAG),
}


def prompt_recipes(recipes: dict[str, Recipe]) -> dict[str, Recipe]:
    """Returns the recipes of all prompts by task. recipes: those of the data sets' own tasks."""
    return {
        recipe.task: recipe
        for task, (label, prompts) in PROMPTS.items()
        for recipe in prompted(recipes[task], label, prompts)
    }
