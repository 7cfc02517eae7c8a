#!/usr/bin/env bash
# Baseline: average routes; the output of every layer is the mean of its experts' outputs, for all tasks.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export OUTPUT_DIR=${OUTPUT_DIR:-models/avg_routing}
exec "$PYTHON" -m routing_moe.studies.training --avg_routing "$@"
