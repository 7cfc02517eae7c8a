"""What the tests of mistakes with the commands of task vectors share."""

import tiny_vectors
from mistakes import refused


def told_of(place, capsys, method, **changed) -> list[str]:
    """The lines that a user is told."""
    changed = {
        name: [place.filled_in(v) for v in value] if isinstance(value, list) else place.filled_in(value)
        for name, value in changed.items()
    }
    output_dir = changed.pop("output_dir", place.out)
    told = refused(
        place, capsys, lambda: tiny_vectors.run(method, place.gym, place.bart, output_dir, **changed)
    )
    return [line for line in told.err.splitlines() if not line.startswith("usage:")]
