#!/usr/bin/env bash
# MHR: as Poly, with weights of their own for each block of features (--lora_splits N: N blocks).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export OUTPUT_DIR=${OUTPUT_DIR:-models/mhr}
exec "$PYTHON" -m routing_moe.studies.training --variant mhr "$@"
