"""Shared by the tests of user mistakes: a folder to make them in, and checks of every error."""

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
        """Replaces <out>, <gym>, <bart>, <here> in a flag's value or an expected message by paths."""
        if not isinstance(text, str):
            return text
        for name in ("out", "gym", "bart"):
            text = text.replace(f"<{name}>", str(getattr(self, name)))
        return text.replace("<here>", str(self.folder))


def refused(place: Place, capsys, command):
    """Returns what `command()` prints (out, err), after the checks that every mistake must pass."""
    before, capsys_before = contents(place.folder), capsys.readouterr()
    assert "Traceback" not in capsys_before.err
    try:
        code = command()
    except SystemExit as stopped:  # argparse's own
        code = stopped.code
    output = capsys.readouterr()
    assert code == 2, output.err
    assert "Traceback" not in output.err
    assert contents(place.folder) == before
    print(output.err)  # shown when a test fails
    return output


def complaint(place: Place, capsys, **changed) -> list[str]:
    """Returns the lines of the training command's errors."""
    changed = {name: place.filled_in(value) for name, value in changed.items()}
    output_dir = Path(changed.pop("output_dir", place.out))
    output = refused(place, capsys, lambda: run(place.gym, place.bart, output_dir, **changed))
    return [line for line in output.err.splitlines() if not line.startswith("usage:")]


def assert_fault(lines: list[str], *fragments: str) -> None:
    """Asserts that one fault contains all fragments."""
    faults = "\n".join(lines).split("error: ")
    assert any(all(fragment in fault for fragment in fragments) for fault in faults), lines
