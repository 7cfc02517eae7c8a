#!/usr/bin/env bash
# Baseline: a random expert per example and layer, drawn again at each step.
# Environment variables and further flags as for train_routing_bart.sh.
set -euo pipefail

OUTPUT_DIR=${OUTPUT_DIR:-models/random_routing} exec bash "$(dirname "${BASH_SOURCE[0]}")/train_routing_bart.sh" --random_routing "$@"
