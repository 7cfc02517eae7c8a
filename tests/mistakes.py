"""What the tests of user mistakes share: a place to make them in, and what every complaint must be like."""

import json
from pathlib import Path

import numpy as np
from tiny_runs import ROWS, contents, run

from routing_moe.model.task_vectors import save_task_vectors


class Place:
    """A folder for one case: a gym, a BART, an output folder that does not exist yet or holds a run."""

    def __init__(self, folder: Path, gym: Path, bart: Path):
        self.folder, self.gym, self.bart, self.out = folder, gym, bart, folder / "out"

    def write(self, path: Path, content: str | bytes | dict) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            content = json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def split(self, **sections) -> None:
        self.write(self.gym / "split.json", sections)

    def vectors(self, names=tuple(ROWS), vectors_ND=None) -> None:
        (self.folder / "vectors").mkdir()
        save_task_vectors(self.folder / "vectors", names, np.zeros((len(names), 8)))
        if vectors_ND is not None:
            np.save(self.folder / "vectors/task_vecs.npy", vectors_ND, allow_pickle=True)

    def filled_in(self, text):
        """Paths of this place for <out>, <gym>, <bart>, <here> in a flag's value or an expected message."""
        if not isinstance(text, str):
            return text
        for name in ("out", "gym", "bart"):
            text = text.replace(f"<{name}>", str(getattr(self, name)))
        return text.replace("<here>", str(self.folder))


def refused(place: Place, capsys, command):
    """What `command()` prints (out, err), after the checks that every mistake must pass."""
    before, capsys_before = contents(place.folder), capsys.readouterr()
    assert "Traceback" not in capsys_before.err
    try:
        code = command()
    except SystemExit as stopped:  # argparse's own
        code = stopped.code
    told = capsys.readouterr()
    assert code == 2, told.err
    assert "Traceback" not in told.err
    assert contents(place.folder) == before
    print(told.err)  # shown when a test fails
    return told


def complaint(place: Place, capsys, **changed) -> list[str]:
    """The lines of what a user of the training command is told."""
    changed = {name: place.filled_in(value) for name, value in changed.items()}
    output_dir = Path(changed.pop("output_dir", place.out))
    told = refused(place, capsys, lambda: run(place.gym, place.bart, output_dir, **changed))
    return [line for line in told.err.splitlines() if not line.startswith("usage:")]


def assert_told(lines: list[str], *fragments: str) -> None:
    """All fragments are in one fault."""
    faults = "\n".join(lines).split("error: ")
    assert any(all(fragment in fault for fragment in fragments) for fault in faults), lines
