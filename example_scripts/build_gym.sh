#!/usr/bin/env bash
# Build CrossFit's gym of 160 tasks from public data sets, and compare it with the published files.
#   bash example_scripts/build_gym.sh [FLAGS]
#   bash example_scripts/build_gym.sh --tasks boolq "glue-*"
#   FLAGS  flags of `routing-moe build-gym`
# Environment (default):
#   OUTPUT_DIR   gym folder, for DATA_DIR of the other scripts (data/gym)
#   MIRROR       folder with the files by URL, <host>/<path>: nothing is downloaded (none)
#   NUM_WORKERS  number of tasks built at the same time (number of cores, at most 4)
# Run the same command to continue after an interruption; finished tasks are kept. Exits with 1 if some tasks could not
# be built; gym_report.csv in OUTPUT_DIR says why.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

OUTPUT_DIR=${OUTPUT_DIR:-data/gym}
echo "CrossFit's gym from ${MIRROR:-public data sets, which are downloaded}; output in $OUTPUT_DIR${*:+; flags: $*}"
exec "$PYTHON" -m routing_moe.cli.build_gym \
    --output_dir "$OUTPUT_DIR" \
    ${MIRROR:+--mirror "$MIRROR"} \
    ${NUM_WORKERS:+--num_workers "$NUM_WORKERS"} \
    "$@"
