"""Shared by the tests of wrong input: a folder for a case, and the errors of each command."""

import json
from pathlib import Path

import numpy as np
import tiny_grids
import tiny_vectors
from tiny_runs import ROWS, contents, run, typed

from routing_moe.cli.merge import main as merge

UNUSUAL_JSON = [  # (an object that json.loads refuses in other ways than JSONDecodeError, what is said of it)
    ('{"input": "x", "input": "y"}', "not valid JSON: the key 'input' is given twice"),
    ('{"input": "x \\ud800 y"}', "not valid JSON: a text holds half of a surrogate pair"),
    (f'{{"input": "x", "z": {"[" * 90000}{"]" * 90000}}}', "not valid JSON: nested too deeply"),
    (f'{{"input": "x", "z": {"1" * 5000}}}', "not valid JSON: an integer has too many digits"),
]


class Place:
    """A folder for one case: a gym, a BART, an output folder that does not exist yet or holds a run.

    runs: further folders by name, for `filled_in`.
    """

    def __init__(self, folder: Path, gym: Path, bart: Path, runs: dict[str, Path] | None = None):
        self.folder, self.gym, self.bart, self.out = folder, gym, bart, folder / "out"
        self.runs = runs or {}

    def write(self, path: Path | str, content: str | bytes | dict | list) -> Path:
        """Writes a file of text, bytes or JSON. path: relative to the folder, or absolute."""
        path = self.folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict | list):
            content = json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def change(self, path: str, **fields) -> None:
        """Changes fields of a JSON file."""
        self.write(path, json.loads((self.folder / path).read_text()) | fields)

    def split(self, **sections) -> None:
        self.write(self.gym / "split.json", sections)

    def vectors(self, names=tuple(ROWS), vectors_ND=None, D: int = 8, **meta) -> None:
        rows = dict(zip(names, np.eye(len(names), D), strict=True))
        folder = tiny_vectors.write_vectors(self.folder / "vectors", rows, **meta)
        if vectors_ND is not None:
            np.save(folder / "task_vecs.npy", vectors_ND, allow_pickle=True)

    def filled_in(self, text):
        """Replaces <out>, <gym>, <bart>, <here>, <run> in a flag's value or an expected message by paths."""
        if isinstance(text, list):
            return [self.filled_in(part) for part in text]
        if not isinstance(text, str):
            return text
        folders = {"out": self.out, "gym": self.gym, "bart": self.bart, "here": self.folder} | self.runs
        for name, folder in folders.items():
            text = text.replace(f"<{name}>", str(folder))
        return text


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


def complaint(place: Place, capsys, command: str = "train", **changed) -> list[str]:
    """Returns the lines of the errors of train, finetune, merge or a command of task vectors.

    changed: flag=value changes a flag of a valid command line, None omits it.
    """
    changed = {name: place.filled_in(value) for name, value in changed.items()}
    output_dir = Path(changed.pop("output_dir", place.folder / "new" if command == "merge" else place.out))
    files = (place.gym, place.bart, output_dir)

    def call():
        if command == "train":
            return run(*files, **changed)
        if command == "finetune":
            short = dict(task_dir=place.gym / "plural", max_output_length=6)
            return tiny_grids.finetune(*files, **short | changed)
        if command == "merge":
            sources = dict(routes_from=place.out, model=place.bart, output_dir=output_dir)
            return merge(typed(sources | changed))
        return tiny_vectors.run(command, *files, **changed)

    return [line for line in refused(place, capsys, call).err.splitlines() if not line.startswith("usage:")]


def assert_problem(lines: list[str], *fragments: str) -> None:
    """Asserts that one problem contains all fragments."""
    problems = "\n".join(lines).split("error: ")
    assert any(all(fragment in problem for fragment in fragments) for problem in problems), lines


def check(place: Place, capsys, command: str, changed: dict, message: str, damage=None) -> None:
    """Asserts that a command refuses its input after a damage, with an error with all parts of the message.

    message: parts separated by " ... ", with <here> and other names of `Place.filled_in`.
    """
    if damage:
        damage(place)
    lines = complaint(place, capsys, command, **changed)
    assert_problem(lines, *(place.filled_in(part) for part in message.split(" ... ")))
