"""The parser of all commands, which suggests the right flag for an unknown one."""

import argparse
from collections.abc import Sequence

from dataloader.errors import did_you_mean

# {unknown flag: the right ones, of which a command has some, or what else to do}
INSTEAD = {
    "--lr": ("--learning_rate", "--learning_rate_list"),
    "--batch_size": ("--train_batch_size", "--bsz_list", "--predict_batch_size"),
    "--epochs": ("--num_train_epochs",),
    "--device": "a GPU is used if there is one; CUDA_VISIBLE_DEVICES=1 in the environment chooses another, "
    "ACCELERATE_USE_CPU=true none",
    "--seeds": 'SEEDS="1 2" in the environment of a script',
    "--small": "it is the first word of a script",
    "--match": "it was removed; train --equal_flops RUN takes as many steps as cost the FLOPs of RUN",
    "--seed": "the command draws nothing at random that a seed would change",
}


class Parser(argparse.ArgumentParser):
    """Parser of a command. program: its name, such as "routing-moe train"."""

    def __init__(self, program: str, **options):
        super().__init__(
            prog=program,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # an abbreviated flag would change its meaning when a new one is added
            **options,
        )

    def parse_args(self, args: Sequence[str] | None = None, namespace=None) -> argparse.Namespace:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            hints = map(self._instead_of, (word for word in unknown if word.startswith("-")))
            self.error(f"unrecognized arguments: {' '.join(unknown)}{''.join(dict.fromkeys(hints))}")
        return parsed

    def _instead_of(self, unknown: str) -> str:
        """Returns "; did you mean ...?", or what else to do, for an unknown flag; "" if nothing is close."""
        known, right = self._option_string_actions, INSTEAD.get(unknown.partition("=")[0], ())
        if isinstance(right, str):
            return f"; {right}"
        right = [flag for flag in right if flag in known]
        return f"; did you mean {' or '.join(right)}?" if right else did_you_mean(unknown, known)
