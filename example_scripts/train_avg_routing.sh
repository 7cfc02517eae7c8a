#!/usr/bin/env bash
# Baseline: average routes; the output of every layer is the mean of its experts' outputs, for all tasks.
# Variables and further flags as for train_routing_bart.sh.
set -euo pipefail

OUTPUT_DIR=${OUTPUT_DIR:-models/avg_routing}
set -- --avg_routing "$@"
source "$(dirname "${BASH_SOURCE[0]}")/train_routing_bart.sh"
