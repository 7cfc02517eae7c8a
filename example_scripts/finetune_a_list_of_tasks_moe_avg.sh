#!/usr/bin/env bash
# Fine-tune a mixture on a list of tasks, with average routes (every expert has weight 1/E).
#   bash example_scripts/finetune_a_list_of_tasks_moe_avg.sh "boolq piqa" models/avg_routing moe_avg
# Arguments and environment: example_scripts/finetuning.sh.
set -aeuo pipefail

# In the environment, or written here, such as DATA_DIR=path/to/gym; `set -a` passes them on to other scripts.
MODEL=${MODEL:-}
DATA_DIR=${DATA_DIR:-}
SPLIT=${SPLIT:-}
set +a

default_checkpoint=models/avg_routing default_identifier=moe_avg training_script=train_avg_routing.sh
source "$(dirname "${BASH_SOURCE[0]}")/finetuning.sh"

finetune --moe_init --moe_avg_route --init_dir "$CHECKPOINT" "$@"
