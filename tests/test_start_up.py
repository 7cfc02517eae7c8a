"""`--help`, unknown flags and missing files are answered without the libraries that take long to import."""

import json
import os
import subprocess
import sys

import pytest
from tiny_runs import ROOT

from routing_moe.cli.entry import COMMANDS, GROUPS, METHODS

SLOW = ("torch", "transformers", "sklearn", "scipy", "matplotlib")  # 0.2 to 4 seconds each
VECTORS = "--train_dir nowhere --model ./nowhere --output_dir out"
MISSING_FILE = {
    "build-gym": "--output_dir out --split nowhere",
    "list-tasks": "--split nowhere test",
    "add-task": "--gym out --name t --from nowhere.csv --input {q} --output {a} --metric EM",
    "conflict-gym": "--names nowhere --output_dir out",
    "conflict-gym bart": "--gym nowhere --output_dir out",
    "train": VECTORS,
    "finetune": "--task_dir nowhere --output_dir out",
    "adapt": "--base ./nowhere --adapters nowhere --rows nowhere.csv --output_dir out",
    "assemble": "--base ./nowhere --experts a=nowhere b=nowhere --output_dir out",
    "import-gguf": "nowhere.gguf --output_dir out",
    "average": "--runs ./nowhere ./other --output_dir out",
    "merge": "--routes_from nowhere --model ./nowhere --output_dir out",
    "show-scores": "nowhere",
    "compare": "nowhere",
    "answer": "--checkpoint ./nowhere --task a --inputs nowhere.txt",
    "export": "--checkpoint ./nowhere --task a --output_dir out",
    "collect-results": "--logs_dir nowhere --output_file out.csv",
    "compute-arg": "--summary1 nowhere.csv --summary2 b.csv --output_file out.csv",
    "inspect-routes": "nowhere --output_dir out",
    "correlate-routes": "nowhere --output_dir out",
    "ablate": "nowhere --output_dir out",
    "transfer": "nowhere --output_dir out",
    "create-gif": "--run nowhere",
    "report": "nowhere --output_file out.html",
    "push": "nowhere owner/name --dry_run out",
    "vectors random": "--train_dir nowhere --output_dir out",
    **{f"vectors {name}": VECTORS for name in ("text", "finetuned-text", "fisher", "gradient")},
    "vectors descriptions": "--descriptions nowhere.json --output_dir out",
    "vectors reduce": "--taskvecs nowhere --dim 2 --output_dir out",
    "vectors inspect": "--taskvecs nowhere --output_dir out",
}
# Runs command lines in one process; prints {line: (exit code, output, slow modules imported so far)}.
CHILD = """
import contextlib, io, json, sys
from routing_moe.cli import entry
answers = {}
for line in json.loads(sys.argv[1]):
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = entry.main(line.split())
    except SystemExit as stopped:
        code = stopped.code
    slow = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
    answers[line] = (code, printed.getvalue(), slow)
json.dump(answers, sys.stdout)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder, lines = tmp_path_factory.mktemp("start"), ["--help", "trian", "inspect_routes --help"]
    lines += [f"{name} --help" for name in COMMANDS]
    lines += ["vectors", "vectors --help", "vectors fischer --train_dir gym"]
    for name, words in MISSING_FILE.items():
        lines += [f"{name} {words} --tpyo", f"{name} {words}"]
    words = [sys.executable, "-c", CHILD, json.dumps(lines), json.dumps(SLOW)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_imports_no_slow_library(name, answers):
    code, text, slow = answers[f"{name} --help"]
    assert (code, slow) == (0, [])
    assert text.startswith(f"usage: routing-moe {name} ")


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"parallel"}))  # which reads no file
def test_errors_of_a_command_import_no_slow_library(name, answers):
    words = MISSING_FILE[name]
    code, text, slow = answers[f"{name} {words} --tpyo"]
    assert (code, slow) == (2, [])
    assert "unrecognized arguments: --tpyo" in text
    code, text, slow = answers[f"{name} {words}"]
    assert (code, slow) == (2, []), text
    assert text.startswith("error: ")
    assert "nowhere" in text


def test_the_entry_point_lists_every_command_and_guesses_a_misspelt_one(answers):
    code, text, slow = answers["--help"]
    assert (code, slow) == (0, [])
    listed = " ".join(GROUPS.values()).split()
    assert all(f"\n  {name} " in text for name in listed)
    assert (len(listed) <= 27, len(GROUPS["to start with"].split())) == (True, 10)
    assert {name.split()[0] for name in COMMANDS} == set(listed)
    assert answers["inspect_routes --help"][0] == 0  # underscores are accepted, too
    code, text, slow = answers["vectors --help"]
    assert (code, slow, answers["vectors"][1]) == (0, [], text)
    assert all(f"\n  {method} " in text for method in METHODS)
    for line, guess in (("trian", "train"), ("vectors fischer --train_dir gym", "fisher")):
        code, text, _ = answers[line]
        assert (code, f"did you mean '{guess}'?" in text) == (2, True)


def test_a_file_of_the_user_that_hides_a_package_is_named_with_the_remedy(tmp_path):
    (tmp_path / "task.py").write_text("class MyLoader: pass\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "import routing_moe"]  # the current folder comes first
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    error = ended.stderr.splitlines()[-1]
    assert error.startswith(f"ImportError: {tmp_path}/task.py hides the package")
