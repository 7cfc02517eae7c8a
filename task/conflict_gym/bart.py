"""Write an untrained BART for a conflict gym: one token per word, and per task name or part of it.

    python -m task.conflict_gym.bart --gym data/conflict_gym --output_dir data/conflict_bart
    python -m task.conflict_gym.bart --gym data/conflict_gym --output_dir data/wide_bart --width 32

The weights are random: a gym of made-up words has nothing that a model could know before. Gyms with the same
--words, --tasks, --unseen_tasks and opaque names have the same tokens, whatever their seed. The model has 64
positions, so it trains with --max_input_length 64 or less.
"""

import sys

from dataloader.errors import InputError
from dataloader.task_splits import load_split
from routing_moe.cli.console import run_command
from routing_moe.config.flags import flag_faults
from routing_moe.io.files import replacing_directory, unwritable
from task.conflict_gym.settings import BartSettings, load_settings
from task.conflict_gym.skills import made_up_words


def main(argv: list[str] | None = None) -> int:
    return run_command(run, BartSettings, argv, __doc__)


def run(settings: BartSettings) -> None:
    faults = flag_faults(settings)
    folder = settings.output_dir
    if reason := unwritable(folder):
        faults.append(f"--output_dir {reason}")
    elif folder.is_dir() and any(folder.iterdir()):
        faults.append(f"--output_dir {folder} is not empty; name a new folder")
    if faults:
        raise InputError(faults)
    words = made_up_words(load_settings(settings.gym).words)
    names = load_split(settings.gym / "split.json").all

    from task.conflict_gym.model import random_bart, word_tokenizer  # imports torch, which takes seconds

    tokenizer = word_tokenizer(words, names)
    model = random_bart(tokenizer, settings.width, settings.layers, settings.init_std, settings.seed)
    with replacing_directory(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    print(f"wrote {folder}: {model.num_parameters():,} parameters, {len(tokenizer)} tokens")


if __name__ == "__main__":
    sys.exit(main())
