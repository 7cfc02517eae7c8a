"""The parser of all commands, which suggests the right flag for an unknown one."""

import argparse
from collections.abc import Sequence

from dataloader.errors import did_you_mean

# {usual name of a flag: the names here, of which a command has some}
INSTEAD = {
    "--lr": ("--learning_rate", "--learning_rate_list"),
    "--batch_size": ("--train_batch_size", "--bsz_list", "--predict_batch_size"),
    "--epochs": ("--num_train_epochs",),
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
        """Returns "; did you mean ...?" for an unknown flag, or "" when nothing is close."""
        known = self._option_string_actions
        right = [flag for flag in INSTEAD.get(unknown.partition("=")[0], ()) if flag in known]
        return f"; did you mean {' or '.join(right)}?" if right else did_you_mean(unknown, known)
