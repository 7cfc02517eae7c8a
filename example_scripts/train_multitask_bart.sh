#!/usr/bin/env bash
# Baseline: one plain BART for all tasks.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export OUTPUT_DIR=${OUTPUT_DIR:-models/multitask_bart}
exec "$PYTHON" -m routing_moe.studies.training --num_experts 1 "$@"
