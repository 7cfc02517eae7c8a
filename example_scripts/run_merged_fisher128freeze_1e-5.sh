#!/usr/bin/env bash
# Stage 2: trains the experts of OUTPUT_DIR/init, from average to learned routes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.two_stages stage2 "$@"
