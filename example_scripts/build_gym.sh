#!/usr/bin/env bash
# Build CrossFit's gym of 160 tasks in OUTPUT_DIR (data/gym), from public data sets or the files in MIRROR.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.cli.build_gym --output_dir "${OUTPUT_DIR:-data/gym}" ${MIRROR:+--mirror "$MIRROR"} \
    ${NUM_WORKERS:+--num_workers "$NUM_WORKERS"} "$@"
