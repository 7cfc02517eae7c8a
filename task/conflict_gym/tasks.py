"""The tasks of a conflict gym: their names, skills and rows."""

import random
from dataclasses import dataclass

from task.conflict_gym.settings import GymSettings, contested_rows, sample_sizes
from task.conflict_gym.skills import Skills
from task.gym_files import Row, without_repeats

Input = tuple[int, ...]  # word indices


@dataclass(frozen=True)
class Task:
    """second_skill answers the inputs whose first word is one of `second_words`; None without overlap."""

    name: str
    number: int
    unseen: bool
    skill: int
    second_skill: int | None
    second_words: frozenset[int]

    def skill_for(self, words: Input) -> int:
        return self.second_skill if words[0] in self.second_words else self.skill


def draw_tasks(settings: GymSettings, skills: Skills) -> list[Task]:
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


def _task(settings: GymSettings, skills: Skills, number: int, skill: int) -> Task:
    a, b = skills.parts(skill)
    name = f"t{number:03d}" if settings.names == "opaque" else f"e{a}-d{b}-t{number:03d}"
    second, words = None, []
    if settings.overlap > 0:
        rng = random.Random(f"{settings.seed} overlap {number}")
        second = rng.choice([other for other in range(skills.count) if other != skill])
        for kind in (range(skills.contested), range(skills.contested, len(skills.words))):
            words += rng.sample(kind, round(settings.overlap * len(kind)))
    return Task(name, number, number >= settings.tasks, skill, second, frozenset(words))


def task_files(settings: GymSettings, skills: Skills, task: Task) -> dict[str, list[Row]]:
    """Returns {file name: rows} of a task. No input repeats, except in the copies of the test file."""
    rng = random.Random(f"{settings.seed} rows {task.number}")
    # `faults_of` ensures that there are enough inputs of either kind.
    contested, rest = (
        without_repeats(lambda words=words: tuple(rng.sample(words, skills.input_words)))
        for words in (range(skills.contested), range(skills.contested, len(skills.words)))
    )

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


def _rows(skills: Skills, task: Task, inputs: list[Input]) -> list[Row]:
    answers = [skills.words[skills.answer(task.skill_for(words), words)] for words in inputs]
    texts = [" ".join(skills.words[word] for word in words) for words in inputs]
    return list(zip(texts, answers, strict=True))


def add_noise(rows: list[Row], share: float, words: tuple[str, ...], rng: random.Random) -> list[Row]:
    """Returns the rows with a random other word as the answer of a share of them, rounded to whole rows."""
    noisy = list(rows)
    for index in rng.sample(range(len(rows)), round(share * len(rows))):
        text, answer = rows[index]
        noisy[index] = text, rng.choice([word for word in words if word != answer])
    return noisy
