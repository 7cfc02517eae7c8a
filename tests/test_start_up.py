"""Start-up: help, and errors in flags and files, need no library that takes long to import."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from routing_moe.cli.entry import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
SLOW = ("torch", "transformers", "sklearn", "scipy", "matplotlib")  # 0.2 to 4 seconds each
RUN = ["nowhere", "--output_dir", "out"]
VECTORS = ["--train_dir", "nowhere", "--model", "./nowhere", "--output_dir", "out"]
MISSING_FILE = {
    "build-gym": ["--output_dir", "out", "--split", "nowhere"],
    "list-tasks": ["--split", "nowhere", "test"],
    "add-task": [
        *("--gym", "out", "--name", "t", "--from", "nowhere.csv"),
        *("--input", "{q}", "--output", "{a}", "--metric", "EM"),
    ],
    "train": ["--do_train", "--initialize_from_vanilla", *VECTORS],
    "finetune": ["--do_train", "--task_dir", "nowhere", "--output_dir", "out"],
    "merge": ["--routes_from", "nowhere", "--model", "./nowhere", "--output_dir", "out"],
    "show-scores": ["nowhere"],
    "compare": ["nowhere"],
    "compare-runs": ["nowhere"],
    "overview": ["nowhere"],
    "answer": ["--checkpoint", "./nowhere", "--task", "a", "--inputs", "nowhere.txt"],
    "export": ["--checkpoint", "./nowhere", "--task", "a", "--output_dir", "out"],
    "collect-results": ["--logs_dir", "nowhere", "--output_file", "out.csv"],
    "compute-arg": ["--summary1", "a.csv", "--summary2", "b.csv", "--output_file", "out.csv"],
    "inspect-routes": RUN,
    "correlate-routes": RUN,
    "ablate": RUN,
    "create-gif": ["--run", "nowhere"],
    "report": ["nowhere", "--output_file", "out.html"],
    "push": ["nowhere", "owner/name", "--dry_run", "out"],
    "vectors random": ["--train_dir", "nowhere", "--output_dir", "out"],
    "vectors text": VECTORS,
    "vectors finetuned-text": VECTORS,
    "vectors fisher": VECTORS,
    "vectors gradient": VECTORS,
    "vectors descriptions": ["--descriptions", "nowhere.json", "--output_dir", "out"],
    "vectors reduce": ["--taskvecs", "nowhere", "--dim", "2", "--output_dir", "out"],
    "vectors inspect": ["--taskvecs", "nowhere", "--output_dir", "out"],
}

CHILD = """
import contextlib, io, json, sys
from routing_moe.cli import entry
found = {}
for line in json.loads(sys.argv[1]):
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = entry.main(line)
    except SystemExit as stopped:
        code = stopped.code
    slow = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
    found[" ".join(line)] = (code, printed.getvalue(), slow)
json.dump(found, sys.stdout)
"""


def run(lines: list[list[str]], folder: Path, slow=SLOW) -> dict[str, tuple[int, str, list[str]]]:
    """{command line: (exit code, what it printed, slow modules imported so far)}, all in one process."""
    words = [sys.executable, "-c", CHILD, json.dumps(lines), json.dumps(slow)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    lines = []
    for name in COMMANDS:
        lines += [[*name.split(), "--help"], [*name.split(), *MISSING_FILE[name], "--tpyo"]]
        lines.append([*name.split(), *MISSING_FILE[name]])
    found = run([*lines, ["--help"], ["trian"]], folder)
    assert list(folder.iterdir()) == []
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_errors_of_a_command_import_no_slow_library(name, started):
    words = " ".join(MISSING_FILE[name])
    code, text, slow = started[f"{name} --help"]
    assert (code, slow) == (0, [])
    assert text.startswith(f"usage: routing-moe {name} ")
    code, text, slow = started[f"{name} {words} --tpyo"]
    assert (code, slow) == (2, [])
    assert "unrecognized arguments: --tpyo" in text
    code, text, slow = started[f"{name} {words}"]
    assert (code, slow) == (2, []), text
    assert text.startswith("error: ")
    assert "nowhere" in text or "a.csv" in text


def test_the_entry_point_lists_every_command_and_guesses_a_misspelt_one(started):
    code, text, slow = started["--help"]
    assert (code, slow) == (0, [])
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert "Train a task-level mixture-of-experts on a gym" in text
    code, text, _ = started["trian"]
    assert code == 2
    assert "there is no command 'trian'; did you mean 'train'?" in text


def test_commands_are_named_with_hyphens_or_underscores(tmp_path):
    lines = [["inspect_routes", "--help"], ["vectors", "finetuned_text", "--help"]]
    assert [code for code, *_ in run(lines, tmp_path).values()] == [0, 0]


def test_tables_of_finished_runs_import_no_torch(tmp_path):
    best = tmp_path / "run/best"
    best.mkdir(parents=True)
    (tmp_path / "run/run.json").write_text(json.dumps({"settings": {"train_dir": "gym"}}))
    scores = {"task_prefix": "boolq", "sample": "boolq_32_1", "metric": "ACC"}
    scores |= {"performance": 0.5, "n": 8, "constant": 0.4}
    for part in ("dev", "test"):
        pd.DataFrame([scores]).to_csv(best / f"eval-{part}-performance.csv")
    (tmp_path / "logs/boolq").mkdir(parents=True)
    row = {"prefix": "boolq_32_1_best", "dev_performance": 0.5, "test_performance": 0.4}
    pd.DataFrame([row | {"prefix": "boolq_32_1"}, row]).to_csv(tmp_path / "logs/boolq/results.csv")
    lines = [
        ["show-scores", "run"],
        ["collect-results", "--logs_dir", "logs", "--output_file", "one.csv"],
        ["collect-results", "--logs_dir", "logs", "--output_file", "two.csv"],
        ["compute-arg", "--summary1", "one.csv", "--summary2", "two.csv", "--output_file", "gains.csv"],
    ]
    for line, (code, text, slow) in run(lines, tmp_path, ("torch", "transformers")).items():
        assert (code, slow) == (0, []), f"{line}: {text}"
