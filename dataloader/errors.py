"""The one error that tells a user what to mend in the files and flags given."""

from __future__ import annotations

import difflib
import pickle
import re
from collections.abc import Iterable, Mapping
from contextlib import contextmanager

LONGEST_BRIEF = 300  # characters of another library's message shown
FEW = 5  # names shown of a long list
LONGEST_LINE = 1500  # characters shown of a line of a fault


class InputError(ValueError):
    """Something in the files or settings given is wrong; the message says what, where, and what to do.

    `faults` holds every fault found, so that a caller can gather several checks and raise once. Faults quote
    files, which may be long or not printable: see `printable`.
    """

    def __init__(self, faults: str | Iterable[str]):
        self.faults: list[str] = [printable(f) for f in ([faults] if isinstance(faults, str) else faults)]
        super().__init__("\n".join(self.faults))

    def __reduce__(self):
        return type(self), (self.faults,)  # as another process gets it


def printable(fault: str) -> str:
    """The fault on one line, plus its lines that are indented by two spaces; long lines lose their middle.

    Control characters and single surrogates become escape sequences.
    """
    lines = re.split(r"\n(?=  )", fault)
    return "\n".join(_printable_line(line) for line in lines)


def _printable_line(line: str) -> str:
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 4 :]}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


@contextmanager
def told_with(prefix: str, suffix: str = ""):
    """Puts `prefix`, such as a flag as it is typed, before every fault of an InputError raised inside, and
    `suffix`, such as what to do, after it."""
    try:
        yield
    except InputError as error:
        raise InputError(prefix + fault + suffix for fault in error.faults) from None


class Faults(list):
    """Collects the faults of checks that raise InputError."""

    def of(self, check, *arguments, flag: str | None = None):
        """The check's result, or None with its faults noted, after the flag that gave the path if any."""
        try:
            with told_with(f"--{flag} " if flag else ""):
                return check(*arguments)
        except InputError as error:
            self.extend(error.faults)
            return None


def too_small(flags, least: Mapping[str, float]) -> list[str]:
    """A fault for each of the flags {name: least value}, attributes of `flags`, that is less; None is not."""
    return [
        f"--{name} {value}: must be at least {minimum}"
        for name, minimum in least.items()
        if (value := getattr(flags, name)) is not None and value < minimum
    ]


def in_short(names: list[str], most: int = FEW) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(_cut, names[:most])) + more


def in_brief(error: BaseException) -> str:
    """The beginning of an error's message on one line; a library's may run over hundreds."""
    if isinstance(error, pickle.UnpicklingError):  # torch's message advises to unpickle the file all the same
        return "it is not a file of tensors alone"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _cut(" ".join(lines[:2]) or type(error).__name__)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_BRIEF else text[:LONGEST_BRIEF] + "..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" for the known name closest to `name`, or "" when none is close."""
    by_lowercase = {str(candidate).lower(): str(candidate) for candidate in known}
    close = difflib.get_close_matches(str(name).lower(), by_lowercase, n=1)
    return f"; did you mean '{by_lowercase[close[0]]}'?" if close else ""
