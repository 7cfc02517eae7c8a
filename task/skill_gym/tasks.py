"""The tasks of the gym: tasks.csv defines the splits, the ontology, the metrics and the true skills.

A task is a combination of skills, a vocabulary and a format, and is named after them. Dev and test tasks are
new combinations of skills, vocabularies and formats that all occur in train tasks. The descriptions are
written as by a reader of a few rows of the task who does not know the table of skills.
"""

import csv
import random
from dataclasses import dataclass
from pathlib import Path

from task.gym_files import GymTask, Row
from task.skill_gym.skills import FORMATS, PROBLEMS
from task.skill_gym.world import VOCABULARIES


@dataclass(frozen=True)
class SkillTask:
    """One row of the table. `classes` are the labels of a classification task, all equally frequent; empty
    for other tasks. `description`: one sentence that says what the task asks for.
    """

    split: str
    category: str
    subcategory: str
    skills: tuple[str, ...]
    vocabulary: str
    format: str
    metric: str
    classes: tuple[str, ...]
    description: str

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


def _read_tasks() -> tuple[SkillTask, ...]:
    tasks = []
    with Path(__file__).with_name("tasks.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            *skills, vocabulary, form = row.pop("task").split("-")
            row |= {"skills": tuple(skills), "classes": tuple(row["classes"].split())}
            tasks.append(SkillTask(vocabulary=vocabulary, format=form, **row))
    return tuple(tasks)


TASKS = _read_tasks()
