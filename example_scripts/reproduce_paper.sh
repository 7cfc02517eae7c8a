#!/usr/bin/env bash
# Reproduce the study of the paper; --dry_run lists its runs and their hours.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.paper "$@"
