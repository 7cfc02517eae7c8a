#!/usr/bin/env bash
# Compare routings with dense models on conflict gyms (docs/conflict_gym.md); --help lists variants and flags, which
# environment variables set too: JOBS=2 CONFLICTS=1 VARIANTS="dense clusters oracle" for --jobs, --conflicts, --variants.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.conflict "$@"
