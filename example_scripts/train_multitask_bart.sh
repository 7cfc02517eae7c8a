#!/usr/bin/env bash
# Baseline: one plain BART for all tasks.
# Variables and further flags as for train_routing_bart.sh.
set -euo pipefail

OUTPUT_DIR=${OUTPUT_DIR:-models/multitask_bart}
set -- --num_experts 1 "$@"
source "$(dirname "${BASH_SOURCE[0]}")/train_routing_bart.sh"
