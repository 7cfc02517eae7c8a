"""Write an untrained BART for a conflict gym: one token per word, and per task name or part of it.

    routing-moe conflict-gym bart --gym data/conflict_gym --output_dir data/conflict_bart
    routing-moe conflict-gym bart --gym data/conflict_gym --output_dir data/wide_bart --width 32

The weights are random: a gym of made-up words has nothing that a model could know before. Gyms with the same
--words, --tasks, --unseen_tasks and opaque names have the same tokens, whatever their seed. The model has 64
positions, so it trains with --max_input_length 64 or less.
"""

import sys
from pathlib import Path

from dataloader.errors import InputError, Problems
from dataloader.task_splits import Split, load_split
from task.conflict_gym.settings import BartSettings, GymSettings
from task.conflict_gym.skills import made_up_words
from task.written_folder import run_once, saved_settings, written_at_once


def main(argv: list[str] | None = None) -> int:
    return run_once(write, BartSettings, argv, __doc__, check)


def check(settings: BartSettings) -> tuple[dict, Split]:
    """Returns the settings and the split of the gym. Raises InputError."""
    problems, gym = Problems(), Path(settings.gym)
    of_gym = problems.of(saved_settings, GymSettings, gym)
    split = problems.of(load_split, gym / "split.json")
    if problems:
        raise InputError(problems)
    return of_gym, split


def write(settings: BartSettings, inputs: tuple[dict, Split]) -> None:
    of_gym, split = inputs

    from task.conflict_gym.model import random_bart, word_tokenizer  # imports torch, which takes seconds

    tokenizer = word_tokenizer(made_up_words(of_gym["words"]), split.all)
    model = random_bart(tokenizer, settings.width, settings.layers, settings.init_std, settings.seed)
    with written_at_once(settings) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    print(f"wrote {settings.output_dir}: {model.num_parameters():,} parameters, {len(tokenizer)} tokens")


if __name__ == "__main__":
    sys.exit(main())
