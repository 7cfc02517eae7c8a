#!/usr/bin/env bash
# Compare routings with dense models on conflict gyms (docs/conflict_gym.md).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.conflict "$@"
