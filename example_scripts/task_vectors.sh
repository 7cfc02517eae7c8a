#!/usr/bin/env bash
# Compute task vectors: task_vectors.sh METHOD [FLAGS].
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# The sentence encoder is an optional requirement.
if [ "${1:-}" = descriptions ] && [ "$PYTHON" = .venv/bin/python ]; then make_environment sentences; fi
exec "$PYTHON" -m routing_moe.studies.vectors "$@"
