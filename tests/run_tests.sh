#!/usr/bin/env bash
# Set up .venv with the test tools, check style, run the tests. Arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../example_scripts/setup.sh"

make_environment test
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m pytest "$@"
