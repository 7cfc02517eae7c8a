"""The tasks of the gym: one table that defines the splits, the ontology, the metrics and the true skills.

A task is a combination of skills, a vocabulary and a format, and is named after them. Dev and test tasks are
new combinations of skills, vocabularies and formats that all occur in train tasks.
"""

import random
from dataclasses import dataclass

from task.gym_files import GymTask, Row
from task.skill_gym.formats import FORMATS
from task.skill_gym.skills import PROBLEMS
from task.skill_gym.world import VOCABULARIES


@dataclass(frozen=True)
class Task:
    """One row of the table. `classes` are the labels of a classification task, all equally frequent; empty
    for other tasks.
    """

    split: str
    category: str
    subcategory: str
    skills: tuple[str, ...]
    vocabulary: str
    format: str
    metric: str
    classes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return "-".join((*self.skills, self.vocabulary, self.format))

    def draw(self, rng: random.Random) -> Row:
        """One random row of the task."""
        problem = PROBLEMS[self.skills](rng, VOCABULARIES[self.vocabulary], self.format)
        return (FORMATS[self.format](problem, rng), *problem.answers)

    def described(self) -> GymTask:
        """Returns what the tables of the gym say about the task."""
        skills = (f"skill:{skill}" for skill in self.skills)
        traits = (*skills, f"format:{self.format}", f"vocabulary:{self.vocabulary}")
        return GymTask(self.name, self.split, self.metric, self.category, self.subcategory, traits)


def _task(split: str, place: str, combination: str, metric: str, classes: str = "") -> Task:
    category, subcategory = place.split("/")
    *skills, vocabulary, form = combination.split("-")
    return Task(split, category, subcategory, tuple(skills), vocabulary, form, metric, tuple(classes.split()))


TASKS = (
    _task("train", "sentiment/one review", "sentiment-food-labels", "ACC", "positive negative"),
    _task("train", "sentiment/one review", "sentiment-travel-choice", "ACC"),
    _task(
        "train",
        "sentiment/more to weigh",
        "sentiment-negation-shop-labels",
        "Matthew-Correlation",
        "positive negative",
    ),
    _task(
        "train",
        "sentiment/more to weigh",
        "sentiment-comparison-farm-pair",
        "Classification-F1",
        "first second",
    ),
    _task("train", "entailment/claims", "entailment-food-pair", "ACC", "entailment contradiction"),
    _task("train", "entailment/claims", "entailment-travel-labels", "Classification-F1", "yes no maybe"),
    _task(
        "train",
        "entailment/claims",
        "entailment-negation-shop-pair",
        "Classification-F1",
        "entailment contradiction",
    ),
    _task("train", "entailment/questions", "entailment-farm-qa", "ACC", "yes no"),
    _task("train", "reading/answers in a text", "extraction-farm-qa", "QA-F1"),
    _task("train", "reading/answers in a text", "extraction-food-fill", "EM"),
    _task("train", "reading/answers in a text", "extraction-travel-choice", "ACC"),
    _task("train", "reading/slots", "extraction-shop-command", "EM"),
    _task("train", "knowledge/recall", "lookup-travel-qa", "EM"),
    _task("train", "knowledge/recall", "lookup-farm-fill", "EM"),
    _task("train", "knowledge/recognise", "lookup-shop-choice", "ACC"),
    _task("train", "knowledge/recognise", "lookup-food-labels", "Classification-F1", "true false"),
    _task("train", "numbers/counting", "counting-farm-qa", "EM"),
    _task("train", "numbers/counting", "counting-food-command", "Pearson-Correlation"),
    _task("train", "numbers/comparing", "comparison-shop-choice", "ACC"),
    _task(
        "train", "numbers/comparing", "counting-comparison-travel-pair", "Classification-F1", "first second"
    ),
    _task("train", "rewriting/word order", "reversal-food-command", "EM"),
    _task("train", "rewriting/word order", "swap-travel-command", "Rouge-L"),
    _task("train", "rewriting/word forms", "inflection-farm-command", "EM"),
    _task("train", "rewriting/word forms", "opposite-shop-qa", "EM"),
    _task("dev", "entailment/questions", "entailment-food-qa", "ACC", "yes no"),
    _task("dev", "reading/answers in a text", "extraction-travel-fill", "EM"),
    _task("dev", "knowledge/recall", "lookup-shop-fill", "EM"),
    _task("dev", "numbers/comparing", "comparison-farm-choice", "ACC"),
    _task("test", "sentiment/one review", "sentiment-farm-choice", "ACC"),
    _task(
        "test",
        "sentiment/more to weigh",
        "sentiment-negation-food-labels",
        "Matthew-Correlation",
        "positive negative",
    ),
    _task("test", "entailment/claims", "entailment-shop-labels", "Classification-F1", "yes no maybe"),
    _task("test", "reading/answers in a text", "extraction-shop-qa", "QA-F1"),
    _task("test", "knowledge/recognise", "lookup-farm-choice", "ACC"),
    _task("test", "numbers/counting", "counting-shop-qa", "EM"),
    _task("test", "rewriting/word order", "swap-food-command", "Rouge-L"),
    _task("test", "rewriting/word forms", "inflection-travel-qa", "EM"),
)


def metric_table() -> dict[str, str]:
    """{task name: name of its metric}."""
    return {task.name: task.metric for task in TASKS}
