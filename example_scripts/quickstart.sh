#!/usr/bin/env bash
# First steps: creates .venv, writes the conflict gym, trains four models on it, two at a time, and prints a table.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
make_environment
exec "$PYTHON" -m routing_moe.studies.quickstart "$@"
