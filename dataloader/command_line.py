"""The parser of all commands: the name in their usage, and the nearest flag for an unknown one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dataloader.errors import did_you_mean

ENTRY_POINT = "routing-moe"


class Parser(argparse.ArgumentParser):
    """Parser of a command. program: its name without the entry point, such as "python -m package.module"."""

    def __init__(self, program: str, **options):
        super().__init__(
            # The entry point, which is `routing-moe <command>`, calls `main` under that name.
            prog=sys.argv[0] if sys.argv[0].startswith(f"{ENTRY_POINT} ") else program,
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
