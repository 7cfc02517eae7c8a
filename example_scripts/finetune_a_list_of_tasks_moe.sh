#!/usr/bin/env bash
# Fine-tune a mixture on a list of tasks, with the routes of its router.
#   bash example_scripts/finetune_a_list_of_tasks_moe.sh "boolq piqa" models/two_stage moe
# Arguments and environment: example_scripts/finetuning.sh.
set -aeuo pipefail

# In the environment, or written here, such as DATA_DIR=path/to/gym; `set -a` passes them on to other scripts.
MODEL=${MODEL:-}
DATA_DIR=${DATA_DIR:-}
SPLIT=${SPLIT:-}
set +a

default_checkpoint=models/routing_bart default_identifier=moe training_script=train_routing_bart.sh
source "$(dirname "${BASH_SOURCE[0]}")/finetuning.sh"

finetune --moe_init --init_dir "$CHECKPOINT" "$@"
