"""Every command refuses an output folder that it cannot write to, before it computes anything."""

import importlib

import pytest
import tiny_runs
from mistakes import assert_problem, refused
from tiny_grids import grid_flags
from tiny_vectors import METHODS, SETTINGS
from tiny_vectors import flags as vector_flags

from routing_moe.io import files

CLI, TASK_VECTORS = "routing_moe.cli", "task.task_emb"
RUN = ["<out>", "--output_dir", "<inside>"]
TASK_VECTORS_OF_A_RUN = ["--taskvecs", "<out>/best", "--output_dir", "<inside>"]
# Command lines of the commands that the tiny runs do not have one for.
WORDS = {
    f"{CLI}.merge": ["--routes_from", "<out>", "--model", "<bart>", "--output_dir", "<inside>"],
    f"{CLI}.average": ["--runs", *RUN],
    f"{CLI}.assemble": ["--base", "<bart>", "--experts", "a=<bart>", "b=<bart>", "--output_dir", "<inside>"],
    f"{CLI}.export": ["--checkpoint", "<out>", "--task", "count", "--output_dir", "<inside>"],
    f"{CLI}.push": ["<out>", "owner/name", "--dry_run", "<inside>"],
    f"{CLI}.ablate": RUN,
    f"{CLI}.inspect_routes": RUN,
    f"{CLI}.correlate_routes": RUN,
    f"{CLI}.report": ["<out>", "--output_file", "<inside>/page.html"],
    f"{TASK_VECTORS}.reduce": [*TASK_VECTORS_OF_A_RUN, "--fit_on", "all", "--dim", "2"],
    f"{TASK_VECTORS}.inspect": TASK_VECTORS_OF_A_RUN,
}
OF_TINY_RUNS = [f"{CLI}.train", f"{CLI}.finetune", *(f"{TASK_VECTORS}.{method}" for method in METHODS)]
COMMANDS = [*WORDS, *OF_TINY_RUNS]


def words_of(command: str, place) -> list[str]:
    """A valid command line, except for its output folder, <gym>/split.json/inside."""
    inside, name = place.gym / "split.json" / "inside", command.rsplit(".", 1)[1]
    if command in WORDS:
        words = [word.replace("<inside>", str(inside)) for word in WORDS[command]]
        return [place.filled_in(word) for word in words]
    if name == "train":
        return tiny_runs.flags(place.gym, place.bart, inside)
    if name == "finetune":
        return grid_flags(place.gym, place.bart, inside, task_dir=place.gym / "plural", max_output_length=6)
    return vector_flags(name, place.gym, place.bart, inside)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_folder_inside_a_file_is_refused(command, with_run, capsys, no_gpu):
    method = SETTINGS.get(command.rsplit(".", 1)[1])
    main = method.main if method else importlib.import_module(command).main
    printed = refused(with_run, capsys, lambda: main(words_of(command, with_run)))
    assert_problem(printed.err.splitlines(), f"{with_run.gym}/split.json is a file; name a folder")


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    assert files.unwritable(tmp_path / "new" / "folder") is None
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    assert files.unwritable(tmp_path / "new") == f"{tmp_path / 'new'}: {tmp_path} cannot be written to"
