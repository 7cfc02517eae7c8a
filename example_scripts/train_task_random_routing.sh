#!/usr/bin/env bash
# Baseline: a random expert per task and layer, drawn once (--task_level_random_n N: N experts).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export OUTPUT_DIR=${OUTPUT_DIR:-models/task_random_routing}
exec "$PYTHON" -m routing_moe.studies.training --task_level_random_routing "$@"
