#!/usr/bin/env bash
# Set up .venv with the test tools, check style, run the tests in up to 4 processes, a file in one of them.
# Arguments go to pytest (-n 0: a single process). While developing, `pytest -m "not slow and not browser"` is the
# quick loop.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../example_scripts/setup.sh"

make_environment test
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
