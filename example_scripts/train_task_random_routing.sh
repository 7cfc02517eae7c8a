#!/usr/bin/env bash
# Baseline: a random expert per task and layer, drawn once (--task_level_random_n N: N experts).
# Variables and further flags as for train_routing_bart.sh.
set -euo pipefail

OUTPUT_DIR=${OUTPUT_DIR:-models/task_random_routing}
set -- --task_level_random_routing "$@"
source "$(dirname "${BASH_SOURCE[0]}")/train_routing_bart.sh"
