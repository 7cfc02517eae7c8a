#!/usr/bin/env bash
# Fine-tune a BART on each of eight tasks, make one mixture of them, and compare its scores with those of each alone.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.assembling "$@"
