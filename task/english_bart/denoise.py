"""Write a gym of one task, to restore masked words in the train inputs of another gym: a warm-up for a BART.

    routing-moe english-bart denoise --gym data/gym --output_dir data/denoising
    routing-moe train --do_train --initialize_from_vanilla --model data/english_bart \\
        --num_experts 1 --train_dir data/denoising --do_lowercase --max_output_length 96 --num_beams 1 \\
        --learning_rate 5e-4 --gradient_accumulation_steps 1 --max_grad_norm 16 --total_steps 1600 --resume \\
        --output_dir models/warm_up
    routing-moe export --checkpoint models/warm_up --checkpoint_name last --output_dir data/warm_bart

BART's text infilling (Lewis et al. 2020) on words: spans of Poisson-distributed length become one [MASK], and
the model writes the whole text. Only inputs of the train files of the split's train tasks are read; answers,
dev and test files are not. Spans have at least one word. "[MASK]" is a text like any other, as in the inputs
of CrossFit's lama and numer_sense. The same settings write the same bytes.
"""

import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataloader.errors import InputError, Problems
from dataloader.gym import Gym, evenly_spread
from dataloader.task_splits import load_split
from routing_moe.config.flags import AT_LEAST_1, REQUIRED, SEED, Range, group
from task.gym_files import write_rows, write_tables
from task.written_folder import FILES, FolderCommand, run_once, written_at_once

TEXTS = group("texts")
TASK = "denoising"
MASK = "[MASK]"
FEWEST_WORDS = 4  # shorter texts are too short to mask


# fmt: off
@dataclass(frozen=True, kw_only=True)
class DenoiseSettings(FolderCommand):
    program = "routing-moe english-bart denoise"
    usage = "--gym FOLDER --output_dir FOLDER [flags, see --help]"

    gym: str = FILES(REQUIRED, "gym folder whose train inputs are the texts")
    split: str | None = FILES(None, "JSON with a task list train; other tasks are not read (default: split.json in --gym)")
    skip_malformed: bool = FILES(False, "leave out malformed lines of task files instead of stopping")
    words: int = TEXTS(40, "most words of a text; longer inputs are cut into several", range=AT_LEAST_1)
    texts_per_task: int = TEXTS(400, "most texts of a task, evenly spread over its inputs", range=AT_LEAST_1)
    noises: int = TEXTS(4, "times that each text occurs, each with other masks", range=AT_LEAST_1)
    dev_rows: int = TEXTS(64, "texts for dev scores, which do not occur in training", range=AT_LEAST_1)
    mask: float = TEXTS(0.3, "share of the words that are masked", range=Range(lambda value: 0 < value < 1, "between 0 and 1"))
    span: float = TEXTS(3.0, "mean number of words that one [MASK] stands for", range=AT_LEAST_1)
    seed: int = TEXTS(0, "seed of the choice of dev texts and of the masks", range=SEED)
# fmt: on


def main(argv: list[str] | None = None) -> int:
    return run_once(write, DenoiseSettings, argv, __doc__)


def write(settings: DenoiseSettings, _) -> None:
    texts = texts_of(settings)
    if len(texts) <= settings.dev_rows:
        raise InputError(
            f"--dev_rows is {settings.dev_rows}, but the train inputs in {settings.gym} give only "
            f"{len(texts)} texts"
        )
    rng = random.Random(f"{settings.seed} denoising")
    rng.shuffle(texts)
    parts = {
        "dev": [noisy_row(rng, text, settings) for text in texts[: settings.dev_rows]],
        "train": [
            noisy_row(rng, text, settings)
            for _ in range(settings.noises)
            for text in texts[settings.dev_rows :]
        ],
    }
    with written_at_once(settings) as folder:
        for part, rows in parts.items():
            write_rows(folder / TASK / f"{TASK}_{len(texts)}_{settings.seed}_{part}.tsv", rows)
        split = {"train": [TASK], "dev": [], "test": []}
        write_tables(folder, {"metrics.json": {TASK: "Rouge-L"}, "split.json": split}, indent=None)
    print(f"wrote {settings.output_dir}: {len(parts['train'])} train and {len(parts['dev'])} dev rows")


def texts_of(settings: DenoiseSettings) -> list[str]:
    """Returns the different texts of the train tasks, of at most --words words. Raises InputError."""
    problems = Problems()
    gym = problems.of(Gym, settings.gym, settings.skip_malformed, flag="gym")
    split = problems.of(load_split, settings.split or Path(settings.gym) / "split.json")
    if not problems:
        problems += gym.check(split.train, ["train"], metrics=False, split=split.path)
    if problems:
        raise InputError(problems)
    texts: dict[str, None] = {}
    for task in split.train:
        inputs = dict.fromkeys(example.input for example in gym.examples(task, "train"))
        pieces = [piece for text in inputs for piece in cut(text.split(), settings.words)]
        texts |= dict.fromkeys(evenly_spread(pieces, settings.texts_per_task))
    return list(texts)


def cut(words: list[str], most: int) -> list[str]:
    """Returns consecutive texts of `most` words, without a rest of fewer than FEWEST_WORDS."""
    pieces = (words[start : start + most] for start in range(0, len(words), most))
    return [" ".join(piece) for piece in pieces if len(piece) >= FEWEST_WORDS]


def noisy_row(rng: random.Random, text: str, settings: DenoiseSettings) -> tuple[str, str]:
    """Returns a row of a task file: the text with masked spans, and the text."""
    return " ".join(infill(rng, text.split(), settings.mask, settings.span)), text


def infill(rng: random.Random, words: Sequence[str], ratio: float, mean_span: float) -> list[str]:
    """Returns the words with about `ratio` of them masked; each masked span is replaced by a single MASK.

    Span lengths are drawn from a Poisson distribution, at least 1. The number of masked words is
    `ratio * len(words)`, rounded. Spans are never adjacent, so every MASK stands for one span.
    """
    to_hide = round(ratio * len(words))
    hidden = [False] * len(words)
    for _ in range(4 * len(words)):
        if to_hide <= 0:
            break
        length = min(max(1, poisson(rng, mean_span)), to_hide)
        start = rng.randrange(len(words) - length + 1)
        if not any(hidden[max(0, start - 1) : start + length + 1]):
            hidden[start : start + length] = [True] * length
            to_hide -= length
    return [
        MASK if is_hidden else word
        for i, (word, is_hidden) in enumerate(zip(words, hidden, strict=True))
        if not is_hidden or i == 0 or not hidden[i - 1]
    ]


def poisson(rng: random.Random, mean: float) -> int:
    """Returns a draw from a Poisson distribution (Knuth's algorithm: a product of uniform draws)."""
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


if __name__ == "__main__":
    sys.exit(main())
