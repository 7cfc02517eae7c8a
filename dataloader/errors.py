"""The one error that tells a user what to mend in the files and flags given."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something in the files or settings given is wrong; the message says what, where, and what to do.

    `faults` holds every fault found, so that a caller can gather several checks and raise once.
    """

    def __init__(self, faults: str | Iterable[str]):
        self.faults: list[str] = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" for the known name closest to `name`, or "" when none is close."""
    by_lowercase = {str(candidate).lower(): str(candidate) for candidate in known}
    close = difflib.get_close_matches(str(name).lower(), by_lowercase, n=1)
    return f"; did you mean '{by_lowercase[close[0]]}'?" if close else ""
