"""What the commands share: parsing that guesses at misspelt flags, and how a user's mistakes are told."""

import argparse
import os
import sys

from dataloader.errors import InputError, did_you_mean, in_brief


def parse_or_guess(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """The parsed flags; the parser's error, with the nearest flag there is, for an unknown one."""
    known, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{did_you_mean(unknown[0], flags)}")
    return known


def flags_given(parser: argparse.ArgumentParser, argv: list[str] | None) -> set[str]:
    """The names of the parser's flags that stand on the command line. Takes the parser's defaults away."""
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    return set(vars(parser.parse_known_args(argv)[0]))


def run_command(run, parser: argparse.ArgumentParser, argv: list[str] | None) -> int:
    """`run(parsed flags)`, with a user's mistakes and a full disk told; the exit code."""
    args = parse_or_guess(parser, argv)
    try:
        run(args)
    except InputError as error:
        return tell(error)
    except OSError as error:  # a full disk, an unwritable file
        print(f"error: {in_brief(error)}", file=sys.stderr)
        return 2
    return 0


def tell(error: InputError) -> int:
    """Print the faults, once although all processes find the same; the exit code."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print("\n".join(f"error: {fault}" for fault in error.faults), file=sys.stderr)
    return 2
