"""run_tests_of_versions.sh, with a Python and a uv that record their arguments."""

import os
import shutil
import subprocess

import pytest
from tiny_runs import ROOT

UV = """#!/bin/sh
echo "uv $*" >>{folder}/calls
for last; do :; done
if [ "$2" = venv ]; then mkdir -p "$last/bin" && cp {folder}/bin/python3 "$last/bin/python"; fi
"""
PYTHON = """#!/bin/sh
echo "python $*" >>{folder}/calls
if [ "$2" = venv ]; then mkdir -p "$3/bin" && cp {folder}/bin/uv "$3/bin" && cp $0 "$3/bin/python"; fi
"""


@pytest.fixture
def repository(tmp_path):
    """A small repository from which a file is deleted, and a PATH with such a Python 3 and 3.14."""
    for name in (
        "example_scripts/setup.sh",
        "tests/run_tests_of_versions.sh",
        "requirements.txt",
        "setup.py",
    ):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "tree" / name)
    for name in ("kept", "deleted"):
        (tmp_path / "tree" / name).touch()
    (tmp_path / "tree/tests/run_tests.sh").write_text(f"echo tests $PWD $* >>{tmp_path}/calls\n")
    (tmp_path / "bin").mkdir()
    for name, text in (("uv", UV), ("python3", PYTHON), ("python3.14", PYTHON)):
        (tmp_path / "bin" / name).write_text(text.replace("{folder}", str(tmp_path)))
        (tmp_path / "bin" / name).chmod(0o755)
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=tmp_path / "tree", check=True)
    (tmp_path / "tree/deleted").unlink()
    (tmp_path / "tree/new").touch()
    return tmp_path


def test_tests_run_beside_a_copy_of_the_working_tree_with_both_versions(repository):
    script = repository / "tree/tests/run_tests_of_versions.sh"
    assert os.access(ROOT / "tests/run_tests_of_versions.sh", os.X_OK)
    done = subprocess.run(
        ["bash", script, "-q"],
        env=dict(PATH=f"{repository}/bin:/usr/bin:/bin", OUTPUT_DIR=str(repository / "out")),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    calls = (repository / "calls").read_text()
    assert "install --quiet --disable-pip-version-check uv>=0.8\n" in calls
    for versions, python, resolution in (
        ("lowest", "3.11", "lowest-direct"),
        ("newest", repository / "bin/python3.14", "highest"),
    ):
        copy = repository / "out" / versions
        names = {path.name for path in copy.iterdir()}
        assert {"kept", "new", "setup.py"} <= names
        assert "deleted" not in names
        assert f"venv --clear --seed --python {python} {copy}/.venv\n" in calls
        assert f"--resolution {resolution} --editable {copy}[test]\n" in calls
