#!/usr/bin/env bash
# Train a task-level mixture-of-experts and predict with it. By default: on the embedded gym; with other data by the
# environment variables of recipe.sh, such as
#   DATA_DIR=gym SPLIT=split.json OUTPUT_DIR=models/moe bash example_scripts/train_routing_bart.sh
# Further arguments are flags of `python -m routing_moe.cli.train`. With --avg_routing, --random_routing,
# --task_level_random_routing or --num_experts 1, a baseline is trained with the same hyperparameters; with
# --task_routes, routes are given instead of learned (those of clusters:K by the vectors in TASKVECS).
set -euo pipefail

# Variables of recipe.sh: in the environment, or written here, such as DATA_DIR=path/to/gym.
MODEL=${MODEL:-}
DATA_DIR=${DATA_DIR:-}
SPLIT=${SPLIT:-}
TASKVECS=${TASKVECS:-}
OUTPUT_DIR=${OUTPUT_DIR:-models/routing_bart}

source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
train --initialize_from_vanilla "$@"
