#!/usr/bin/env bash
# Baseline: average routes; the output of every layer is the mean of its experts' outputs, for all tasks.
# Environment variables and further flags as for train_routing_bart.sh.
set -euo pipefail

OUTPUT_DIR=${OUTPUT_DIR:-models/avg_routing} exec bash "$(dirname "${BASH_SOURCE[0]}")/train_routing_bart.sh" --avg_routing "$@"
