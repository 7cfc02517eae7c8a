"""InputError, the error for wrong files and flags, and helpers that word its messages."""

import difflib
import pickle
from collections.abc import Iterable
from contextlib import contextmanager

LONGEST_BRIEF = 300  # characters shown of another library's message
FEW = 5  # names shown of a long list


class InputError(ValueError):
    """The files or settings given are wrong: each of `problems` says what is wrong, where, and what to do."""

    exit_code = 2  # of a command that it ends

    def __init__(self, problems: str | Iterable[str]):
        self.problems: list[str] = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self):
        return type(self), (self.problems,)  # lets pickle pass the error to another process


@contextmanager
def problem_context(prefix: str, suffix: str = ""):
    """Adds a prefix, such as the flag as typed, and a suffix to the problems of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(prefix + problem + suffix for problem in error.problems) from None


class Problems(list):
    """The problems of checks that raise InputError."""

    def of(self, check, *arguments):
        """Returns check(*arguments), or None after an InputError, whose problems it collects."""
        try:
            return check(*arguments)
        except InputError as error:
            self.extend(error.problems)
            return None


def in_short(names: list[str], most: int = FEW) -> str:
    """Returns the first `most` names, separated by commas, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(_cut, names[:most])) + more


def counted(n: int, what: str) -> str:
    """Returns "1 row" or "2 rows"."""
    return f"{n} {what}" + ("" if n == 1 else "s")


def in_brief(error: BaseException) -> str:
    """Returns the first two lines of another library's error, which can be hundreds of lines long."""
    if isinstance(error, pickle.UnpicklingError):  # torch's message recommends unsafe unpickling
        return "it is not a file of tensors alone"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _cut(" ".join(lines[:2]) or type(error).__name__)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_BRIEF else text[:LONGEST_BRIEF] + "..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" for the known name closest to `name`, or "" when none is close."""
    by_lowercase = {str(candidate).lower(): str(candidate) for candidate in known}
    typed = str(name).lower()
    close = difflib.get_close_matches(typed, by_lowercase, n=1)
    begins = {full[: len(typed)]: full for full in reversed(by_lowercase) if len(typed) > 3}  # "gumble"
    close += [begins[begin] for begin in difflib.get_close_matches(typed, begins, n=1, cutoff=0.8)]
    return f"; did you mean '{by_lowercase[close[0]]}'?" if close else ""
