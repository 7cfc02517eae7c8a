"""Shared by the tests of user mistakes with the commands that compute task vectors."""

import tiny_vectors
from mistakes import refused


def error_lines(place, capsys, method, **changed) -> list[str]:
    """Returns the lines that a command prints as errors."""
    changed = {
        name: [place.filled_in(v) for v in value] if isinstance(value, list) else place.filled_in(value)
        for name, value in changed.items()
    }
    output_dir = changed.pop("output_dir", place.out)
    printed = refused(
        place, capsys, lambda: tiny_vectors.run(method, place.gym, place.bart, output_dir, **changed)
    )
    return [line for line in printed.err.splitlines() if not line.startswith("usage:")]
