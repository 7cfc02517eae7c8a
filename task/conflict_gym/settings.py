"""The flags of `task.conflict_gym.generate` and `task.conflict_gym.bart`, and what follows from them."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object
from routing_moe.config.flags import (
    AT_LEAST_1,
    NOT_NEGATIVE,
    POSITIVE,
    PROBABILITY,
    REQUIRED,
    SEED,
    Command,
    Range,
    flag_faults,
    flags_of,
    group,
)

SAMPLE_SEEDS = (100, 13, 21, 42, 87)  # of an unseen task, as in the published gym
SETTINGS_FILE = "gym.json"
NAMES = ("opaque", "telling")
MOST_WORDS = 1000

FILES = group("files")
TASKS = group("tasks")
SKILLS = group("skills")
ROWS = group("rows")
MODEL = group("model")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class GymSettings(Command):
    program = "python -m task.conflict_gym.generate"
    usage = "--output_dir FOLDER [flags, see --help]"

    output_dir: Path = FILES(REQUIRED, "folder to write the gym into", on_resume=True)
    seed: int = FILES(0, "seed of the skills, the tasks and the rows", range=SEED)
    tasks: int = TASKS(64, "number of train tasks", range=AT_LEAST_1)
    unseen_tasks: int = TASKS(16, "number of unseen tasks, the test section of the split", range=NOT_NEGATIVE)
    names: str = TASKS("opaque", "opaque: t007; telling: e2-d3-t007 for a task of encoder part 2 and decoder part 3", choices=NAMES)
    encoder_parts: int = SKILLS(4, "number of encoder-side parts: which word counts, and its first permutation", range=AT_LEAST_1)
    decoder_parts: int = SKILLS(4, "number of decoder-side parts: the second permutation; every pair of parts is a skill", range=AT_LEAST_1)
    conflict: float = SKILLS(1.0, "share of contested inputs; on these, two skills differ on about 98% (gym.json has the figures)", range=PROBABILITY)
    overlap: float = SKILLS(0.0, "share of the inputs of a task that a second skill answers", range=PROBABILITY)
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
class BartSettings(Command):
    program = "python -m task.conflict_gym.bart"
    usage = "--gym FOLDER --output_dir FOLDER [flags, see --help]"

    gym: Path = FILES(REQUIRED, "folder of a conflict gym, whose words and task names become tokens")
    output_dir: Path = FILES(REQUIRED, "folder to write the model into, new or empty")
    width: int = MODEL(16, "hidden size", range=AT_LEAST_1)
    layers: int = MODEL(2, "number of encoder layers, and of decoder layers", range=AT_LEAST_1)
    init_std: float = MODEL(0.1, "standard deviation of the random weights", range=POSITIVE)
    seed: int = MODEL(0, "seed of the random weights", range=SEED)
# fmt: on


def sample_sizes(settings: GymSettings, unseen: bool) -> dict[str, tuple[int, int]]:
    """Returns {end of a sample's name, such as "16_100": (train rows, dev rows)} of a task."""
    if unseen:
        rows = settings.unseen_rows
        return {f"{rows}_{seed}": (rows, rows) for seed in SAMPLE_SEEDS}
    return {f"{settings.rows}_0": (settings.rows, settings.dev_rows)}


def contested_rows(settings: GymSettings, rows: int) -> int:
    """Returns how many rows of a file are made of contested words."""
    return round(settings.conflict * rows)


def faults_of(settings: GymSettings) -> list[str]:
    """Returns faults of values, and of numbers that no gym can have."""
    if faults := flag_faults(settings):
        return faults
    if settings.tasks < settings.skills:
        faults.append(
            f"--tasks is {settings.tasks}; it must be at least {settings.skills}, the number of skills "
            f"(--encoder_parts {settings.encoder_parts} times --decoder_parts {settings.decoder_parts})"
        )
    if settings.overlap and settings.skills == 1:
        faults.append("--overlap needs a second skill: --encoder_parts or --decoder_parts above 1")
    for name, of, count in (
        ("overlap", "contested words", settings.contested),
        ("label_noise", "train rows (--rows)", settings.rows),
    ):
        share = getattr(settings, name)
        if share > 0 and count and round(share * count) == 0:
            faults.append(
                f"--{name} is {share:g}, less than one of {count} {of}; give 0, or {1 / count:.2g} or more"
            )
    if reason := _too_few_words(settings):
        more = (dataclasses.replace(settings, words=n) for n in range(settings.words + 1, MOST_WORDS + 1))
        enough = next((each.words for each in more if not _too_few_words(each)), None)
        remedy = f"{enough} are enough" if enough else f"{MOST_WORDS}, the most allowed, are too few as well"
        faults.append(f"--words is {settings.words}: {reason}; {remedy}")
    return faults


def _too_few_words(settings: GymSettings) -> str | None:
    """Returns why the contested or the other words are too few for the skills or the rows; None: they suffice."""
    parts = max(("encoder_parts", "decoder_parts"), key=lambda name: getattr(settings, name))
    wanted = getattr(settings, parts)
    if settings.conflict > 0 and settings.contested < wanted:
        return (
            f"--{parts} {wanted} needs as many contested words, but --conflict {settings.conflict:g} makes "
            f"{settings.contested}"
        )
    for kind, share, words in (
        ("contested", settings.conflict, settings.contested),
        ("uncontested", 1 - settings.conflict, settings.words - settings.contested),
    ):
        inputs, rows = math.perm(words, settings.input_words), _most_rows(settings, kind == "contested")
        if share > 0 and inputs < max(rows, 1):
            return (
                f"{words} {kind} words (--conflict {settings.conflict:g}) make {inputs} inputs of "
                f"--input_words {settings.input_words}, but the files of a task need {max(rows, 1)}"
            )
    return None


def _most_rows(settings: GymSettings, contested: bool) -> int:
    """Returns how many different inputs of one kind the files of a train or of an unseen task need."""
    most = 0
    for unseen in (False, True) if settings.unseen_tasks else (False,):
        files = [settings.test_rows, *(n for sizes in sample_sizes(settings, unseen).values() for n in sizes)]
        own = sum(contested_rows(settings, rows) for rows in files)
        most = max(most, own if contested else sum(files) - own)
    return most


def load_settings(folder: Path) -> GymSettings:
    """Returns the settings of a written gym. Raises InputError if its gym.json is missing or damaged."""
    path = folder / SETTINGS_FILE
    saved = load_json_object(path, "the settings of a conflict gym").get("settings")
    kinds = {field.name: field.type for field in dataclasses.fields(GymSettings)}
    names = flags_of(GymSettings).keys() - {"output_dir"}
    known = isinstance(saved, dict) and saved.keys() == names
    if known and all(type(saved[name]) is kinds[name] for name in names):
        settings = GymSettings(output_dir=folder, **saved)
        if not faults_of(settings):
            return settings
    raise InputError(f"{path} does not have the settings of a conflict gym")
