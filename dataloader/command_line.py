"""The parser of all commands, which suggests the nearest flag for an unknown one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dataloader.errors import did_you_mean


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
            guess = did_you_mean(unknown[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{guess}")
        return parsed
