"""The flags of `routing-moe conflict-gym` and `routing-moe conflict-gym bart`, and what follows from them."""

import math
from dataclasses import dataclass

from dataloader.building.recipe import SAMPLES
from dataloader.errors import InputError
from routing_moe.config.flags import (
    AT_LEAST_1,
    NOT_NEGATIVE,
    POSITIVE,
    PROBABILITY,
    REQUIRED,
    SEED,
    Range,
    group,
)
from task.written_folder import FILES, FolderCommand

NAMES = ("opaque", "telling")
MOST_WORDS = 1000

TASKS = group("tasks")
SKILLS = group("skills")
ROWS = group("rows")
MODEL = group("model")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class GymSettings(FolderCommand):
    program = "routing-moe conflict-gym"
    settings_file = "gym.json"

    seed: int = FILES(0, "seed of the skills, the tasks and the rows", range=SEED)
    tasks: int = TASKS(64, "number of train tasks", range=AT_LEAST_1)
    unseen_tasks: int = TASKS(16, "number of unseen tasks, the test section of the split", range=NOT_NEGATIVE)
    names: str = TASKS("opaque", "opaque: t007; telling: e2-d3-t007 for a task of encoder part 2 and decoder part 3", choices=NAMES)
    encoder_parts: int = SKILLS(4, "number of encoder-side parts: which word counts, and its first permutation", range=AT_LEAST_1)
    decoder_parts: int = SKILLS(4, "number of decoder-side parts: the second permutation; every pair of parts is a skill", range=AT_LEAST_1)
    conflict: float = SKILLS(1.0, "share of contested inputs; on these, two skills differ on about 98% (gym.json has the figures)", range=PROBABILITY)
    words: int = ROWS(40, "number of words", range=Range(lambda value: 2 <= value <= MOST_WORDS, f"from 2 to {MOST_WORDS}"))
    input_words: int = ROWS(2, "words of an input, all different", range=Range(lambda value: 1 <= value <= 32, "from 1 to 32"))
    rows: int = ROWS(48, "train rows of a train task", range=AT_LEAST_1)
    dev_rows: int = ROWS(24, "dev rows of a train task", range=AT_LEAST_1)
    test_rows: int = ROWS(64, "test rows of any task", range=AT_LEAST_1)
    unseen_rows: int = ROWS(16, "train rows, and dev rows, of each of the five samples of an unseen task", range=AT_LEAST_1)
    label_noise: float = ROWS(0.0, "share of the train rows with a random wrong answer", range=PROBABILITY)

    @property
    def skills(self) -> int:
        return self.encoder_parts * self.decoder_parts

    @property
    def contested(self) -> int:
        """The number of words on which skills contradict each other."""
        return round(self.conflict * self.words)


@dataclass(frozen=True, kw_only=True)
class TinyBartSettings(FolderCommand):
    program = "routing-moe conflict-gym bart"

    gym: str = FILES(REQUIRED, "folder of a conflict gym, whose words and task names become tokens")
    width: int = MODEL(16, "hidden size", range=AT_LEAST_1)
    layers: int = MODEL(2, "number of encoder layers, and of decoder layers", range=AT_LEAST_1)
    init_std: float = MODEL(0.1, "standard deviation of the random weights", range=POSITIVE)
    seed: int = MODEL(0, "seed of the random weights", range=SEED)
# fmt: on


def sample_sizes(settings: GymSettings, unseen: bool) -> dict[str, tuple[int, int]]:
    """Returns {end of a sample's name, such as "16_100": (train rows, dev rows)} of a task."""
    if unseen:
        rows = settings.unseen_rows
        return {f"{rows}_{seed}": (rows, rows) for seed in SAMPLES}
    return {f"{settings.rows}_0": (settings.rows, settings.dev_rows)}


def contested_rows(settings: GymSettings, rows: int) -> int:
    """Returns how many rows of a file are made of contested words."""
    return round(settings.conflict * rows)


def check(settings: GymSettings) -> None:
    """Raises InputError for numbers of tasks, words and rows that no gym can have."""
    if settings.tasks < settings.skills:
        raise InputError(
            f"--tasks is {settings.tasks}; it must be at least {settings.skills}, the number of skills "
            f"(--encoder_parts {settings.encoder_parts} times --decoder_parts {settings.decoder_parts})"
        )
    contested, start = settings.contested, f"--words is {settings.words}, --conflict {settings.conflict:g}"
    parts = max(settings.encoder_parts, settings.decoder_parts)
    if settings.conflict > 0 and contested < parts:
        raise InputError(f"{start}: {contested} contested words are fewer than the {parts} parts of one side")
    for kind, words in (("contested", contested), ("uncontested", settings.words - contested)):
        inputs, rows = math.perm(words, settings.input_words), _most_rows(settings, kind == "contested")
        if inputs < rows:
            raise InputError(f"{start}: {words} {kind} words make {inputs} inputs, but a task needs {rows}")


def _most_rows(settings: GymSettings, contested: bool) -> int:
    """Returns how many different inputs of one kind the files of a train or of an unseen task need."""
    needed = []
    for unseen in (False, True) if settings.unseen_tasks else (False,):
        files = [settings.test_rows, *(n for sizes in sample_sizes(settings, unseen).values() for n in sizes)]
        n_contested = sum(contested_rows(settings, rows) for rows in files)
        needed.append(n_contested if contested else sum(files) - n_contested)
    return max(needed)
