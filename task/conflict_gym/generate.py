"""Write a conflict gym: small tasks of hidden skills that give the same input contradictory answers.

    routing-moe conflict-gym --output_dir data/conflict_gym
    routing-moe conflict-gym --output_dir data/agreeing --conflict 0     # the control
    routing-moe conflict-gym --output_dir data/36_skills --encoder_parts 6 --decoder_parts 6
    routing-moe conflict-gym bart --help                                 # an untrained BART for a gym

All tasks draw inputs from the same distribution, so only the name of a task, or its route, says which skill
to use. A skill is composed of an encoder-side and a decoder-side part; several tasks share it. Train tasks
have one sample (seed 0), unseen tasks five (100, 13, 21, 42, 87) of the same test file.

Other files: `metrics.json`, `split.json`, `ontology.json` (encoder part, then decoder part), `skills.csv`,
`oracle_routes.json` (the parts of each task), `skill_routes.json` (the skill number of each task) and
`gym.json` (the settings). The same settings write the same bytes.
"""

import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from task.conflict_gym.settings import GymSettings, check, contested_rows, sample_sizes
from task.conflict_gym.skills import Skills, draw_skills
from task.written_folder import run_once, write_json, written_at_once

Input = tuple[int, ...]  # word indices
Row = tuple[str, str]  # input, answer


@dataclass(frozen=True)
class ConflictTask:
    """A task of a gym, whose answers are those of its skill."""

    name: str
    number: int
    unseen: bool
    skill: int


def draw_tasks(settings: GymSettings, skills: Skills) -> list[ConflictTask]:
    """Returns the train tasks, then the unseen ones. Skills are in random order, each about equally often."""
    rng = random.Random(f"{settings.seed} tasks")
    dealt = [*_deal(settings.tasks, skills.count, rng), *_deal(settings.unseen_tasks, skills.count, rng)]
    return [_task(settings, skills, number, skill) for number, skill in enumerate(dealt)]


def _deal(count: int, skills: int, rng: random.Random) -> list[int]:
    """Returns `count` skills in random order. The frequencies of any two skills differ by at most 1."""
    rounds = -(-count // skills)
    dealt = [skill for _ in range(rounds) for skill in rng.sample(range(skills), skills)][:count]
    rng.shuffle(dealt)
    return dealt


def _task(settings: GymSettings, skills: Skills, number: int, skill: int) -> ConflictTask:
    a, b = skills.parts(skill)
    name = f"t{number:03d}" if settings.names == "opaque" else f"e{a}-d{b}-t{number:03d}"
    return ConflictTask(name, number, number >= settings.tasks, skill)


def task_files(settings: GymSettings, skills: Skills, task: ConflictTask) -> dict[str, list[Row]]:
    """Returns {file name: rows} of a task. No input repeats, except in the copies of the test file."""
    rng = random.Random(f"{settings.seed} rows {task.number}")
    # `check` ensures that there are enough inputs of either kind.
    contested = inputs_without_repeats(rng, range(skills.contested), skills.input_words)
    rest = inputs_without_repeats(rng, range(skills.contested, len(skills.words)), skills.input_words)

    def draw(count: int) -> list[Input]:
        of_contested = contested_rows(settings, count)
        inputs = [next(contested) for _ in range(of_contested)]
        inputs += [next(rest) for _ in range(count - of_contested)]
        rng.shuffle(inputs)
        return inputs

    test = _rows(skills, task, draw(settings.test_rows))
    files = {}
    for sample, (train_rows, dev_rows) in sample_sizes(settings, task.unseen).items():
        train = _rows(skills, task, draw(train_rows))
        noise = random.Random(f"{settings.seed} noise {task.number} {sample}")
        files[f"{task.name}_{sample}_train.tsv"] = add_noise(train, settings.label_noise, skills.words, noise)
        files[f"{task.name}_{sample}_dev.tsv"] = _rows(skills, task, draw(dev_rows))
        files[f"{task.name}_{sample}_test.tsv"] = test
    return files


def inputs_without_repeats(rng: random.Random, words: range, count: int) -> Iterator[Input]:
    """Yields random inputs of `count` of the words, endlessly, each input once."""
    drawn = set()
    while True:
        text = tuple(rng.sample(words, count))
        if text not in drawn:
            drawn.add(text)
            yield text


def _rows(skills: Skills, task: ConflictTask, inputs: list[Input]) -> list[Row]:
    answers = [skills.words[skills.answer(task.skill, words)] for words in inputs]
    texts = [" ".join(skills.words[word] for word in words) for words in inputs]
    return list(zip(texts, answers, strict=True))


def add_noise(rows: list[Row], share: float, words: tuple[str, ...], rng: random.Random) -> list[Row]:
    """Returns the rows with a random other word as the answer of a share of them, rounded to whole rows."""
    noisy = list(rows)
    for index in rng.sample(range(len(rows)), round(share * len(rows))):
        text, answer = rows[index]
        noisy[index] = text, rng.choice([word for word in words if word != answer])
    return noisy


# ---- the command


def main(argv: list[str] | None = None) -> int:
    return run_once(write, GymSettings, argv, __doc__, check)


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
    with written_at_once(settings, **description(settings, skills)) as folder:
        for task in tasks:
            (folder / task.name).mkdir()
            for name, rows in task_files(settings, skills, task).items():
                lines = "".join(f"{text}\t{answer}\n" for text, answer in rows)
                (folder / task.name / name).write_text(lines, encoding="utf-8")
        write_features(folder / "skills.csv", skills, tasks)
        for name, content in tables(skills, tasks).items():
            write_json(folder / name, content)


def description(settings: GymSettings, skills: Skills) -> dict[str, Any]:
    """Returns the share of inputs on which pairs of skills contradict."""
    pairs = settings.conflict * skills.disagreements()[np.triu_indices(skills.count, 1)]
    pairs = pairs if len(pairs) else np.zeros(1)
    return {"contradiction": {"lowest": round(float(pairs.min()), 6), "mean": round(float(pairs.mean()), 6)}}


def tables(skills: Skills, tasks: list[ConflictTask]) -> dict[str, Any]:
    """Returns {name of a JSON file next to the tasks: content}."""
    parts = {task.name: skills.parts(task.skill) for task in tasks}
    ontology: dict[str, dict[str, list[str]]] = {}
    for task in sorted(tasks, key=lambda task: task.skill):
        a, b = parts[task.name]
        ontology.setdefault(f"e{a}", {}).setdefault(f"d{b}", []).append(task.name)
    return {
        "metrics.json": dict.fromkeys(parts, "EM"),
        "ontology.json": ontology,
        "split.json": {
            "train": [task.name for task in tasks if not task.unseen],
            "dev": [],
            "test": [task.name for task in tasks if task.unseen],
        },
        "oracle_routes.json": {name: {"encoder": a, "decoder": b} for name, (a, b) in parts.items()},
        "skill_routes.json": {task.name: task.skill for task in tasks},
    }


def write_features(path: Path, skills: Skills, tasks: list[ConflictTask]) -> None:
    """Writes skills.csv: of each task 1 in the columns of its skill and of its two parts, 0 in others."""
    traits = {}
    for task in tasks:
        a, b = skills.parts(task.skill)
        traits[task.name] = (f"skill:e{a}d{b}", f"encoder:e{a}", f"decoder:d{b}")
    by_skill = [traits[task.name] for task in sorted(tasks, key=lambda task: task.skill)]
    columns = [trait for kind in zip(*by_skill, strict=True) for trait in dict.fromkeys(kind)]
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["task", *columns])
        table.writerows([name, *(int(column in own) for column in columns)] for name, own in traits.items())
