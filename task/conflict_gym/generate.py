"""Write a conflict gym: small tasks of hidden skills that give the same input contradictory answers.

    python -m task.conflict_gym.generate --output_dir data/conflict_gym
    python -m task.conflict_gym.generate --output_dir data/agreeing --conflict 0     # the control
    python -m task.conflict_gym.generate --output_dir data/36_skills --encoder_parts 6 --decoder_parts 6

All tasks draw inputs from the same distribution, so only the name of a task, or its route, says which skill
to use. A skill is composed of an encoder-side and a decoder-side part; several tasks share it. Train tasks
have one sample (seed 0), unseen tasks five (100, 13, 21, 42, 87) of the same test file.

Other files: `metrics.json`, `split.json`, `ontology.json` (encoder part, then decoder part), `skills.csv`,
`oracle_routes.json` (the parts of each task), `skill_routes.json` (the skill number of each task) and
`gym.json` (the settings). The same settings write the same bytes.
"""

import sys
from typing import Any

import numpy as np

from dataloader.errors import InputError
from task.conflict_gym.settings import GymSettings, faults_of
from task.conflict_gym.skills import Skills, draw_skills
from task.conflict_gym.tasks import Task, draw_tasks, task_files
from task.gym_files import GymTask, tables_of, write_rows, write_tables
from task.written_folder import run_once, written_at_once


def main(argv: list[str] | None = None) -> int:
    return run_once(write, GymSettings, argv, __doc__, check)


def check(settings: GymSettings) -> None:
    if faults := faults_of(settings):
        raise InputError(faults)


def write(settings: GymSettings, _) -> None:
    generate(settings)
    print(
        f"{settings.tasks} train tasks and {settings.unseen_tasks} unseen tasks of {settings.skills} skills "
        f"written to {settings.output_dir}"
    )


def generate(settings: GymSettings) -> None:
    """Writes the gym into `settings.output_dir`."""
    skills = draw_skills(settings)
    tasks = draw_tasks(settings, skills)
    with written_at_once(settings, **description(settings, skills, tasks)) as folder:
        for task in tasks:
            for name, rows in task_files(settings, skills, task).items():
                write_rows(folder / task.name / name, rows)
        write_tables(folder, tables(skills, tasks))


def description(settings: GymSettings, skills: Skills, tasks: list[Task]) -> dict[str, Any]:
    """Returns the share of inputs on which skills contradict, and the tasks' second skills.

    contradiction: the lowest and the mean of all pairs of skills; 0 if there is only one.
    """
    pairs = settings.conflict * skills.disagreements()[np.triu_indices(skills.count, 1)]
    return {
        "contradiction": {
            "lowest": round(float(pairs.min()), 6) if len(pairs) else 0.0,
            "mean": round(float(pairs.mean()), 6) if len(pairs) else 0.0,
        },
        "second_skills": {task.name: task.second_skill for task in tasks if task.second_words},
    }


def tables(skills: Skills, tasks: list[Task]) -> dict[str, Any]:
    """Returns the tables next to the tasks, for `write_tables`."""
    parts = {task.name: skills.parts(task.skill) for task in tasks}
    described = [described_task(task, *parts[task.name]) for task in tasks]
    by_skill = sorted(described, key=lambda task: parts[task.name])
    return tables_of(described, by_skill) | {
        "oracle_routes.json": {name: {"encoder": a, "decoder": b} for name, (a, b) in parts.items()},
        "skill_routes.json": {task.name: task.skill for task in tasks},
    }


def described_task(task: Task, a: int, b: int) -> GymTask:
    """Returns what the tables say about a task of encoder part a and decoder part b."""
    traits = (f"skill:e{a}d{b}", f"encoder:e{a}", f"decoder:d{b}")
    return GymTask(task.name, "test" if task.unseen else "train", "EM", f"e{a}", f"d{b}", traits)


if __name__ == "__main__":
    sys.exit(main())
