#!/usr/bin/env bash
# Baseline: a random expert per example and layer, drawn again at each step.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export OUTPUT_DIR=${OUTPUT_DIR:-models/random_routing}
exec "$PYTHON" -m routing_moe.studies.training --random_routing "$@"
