#!/usr/bin/env bash
# Baseline: in every layer an expert drawn at random for each example, anew each step.
# Environment variables and further flags as for train_routing_bart.sh.
set -euo pipefail

OUTPUT_DIR=${OUTPUT_DIR:-models/random_routing} exec bash "$(dirname "${BASH_SOURCE[0]}")/train_routing_bart.sh" --random_routing "$@"
