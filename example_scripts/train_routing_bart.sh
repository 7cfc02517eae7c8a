#!/usr/bin/env bash
# Train a task-level mixture-of-experts and predict with it; without data of your own: on the embedded gym.
#   bash example_scripts/train_routing_bart.sh --train_dir path/to/gym --output_dir models/moe
# --help lists the flags; those in capitals (--train_dir: DATA_DIR, --custom_tasks_splits: SPLIT) may be variables.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.training "$@"
