#!/usr/bin/env bash
# Poly: a low-rank expert's factors are averaged by weights from a table of logits, one per task, layer and expert.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export OUTPUT_DIR=${OUTPUT_DIR:-models/poly}
exec "$PYTHON" -m routing_moe.studies.training --variant poly "$@"
