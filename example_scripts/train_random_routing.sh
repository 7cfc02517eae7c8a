#!/usr/bin/env bash
# Baseline: a random expert per example and layer, drawn again at each step.
# Variables and further flags as for train_routing_bart.sh.
set -euo pipefail

OUTPUT_DIR=${OUTPUT_DIR:-models/random_routing}
set -- --random_routing "$@"
source "$(dirname "${BASH_SOURCE[0]}")/train_routing_bart.sh"
