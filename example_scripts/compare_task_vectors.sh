#!/usr/bin/env bash
# Compare methods of computing task vectors: both stages with each method and several seeds, tables of scores.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# The sentence encoder of descriptions is an optional requirement.
if [[ $PYTHON = .venv/bin/python && "${KINDS:-descriptions} $*" = *descriptions* ]]; then make_environment sentences; fi
exec "$PYTHON" -m routing_moe.studies.task_vectors "$@"
