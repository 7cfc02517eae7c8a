#!/usr/bin/env bash
# Fine-tune a mixture on a list of tasks, with a random expert per layer that is drawn again for each example.
#   bash example_scripts/finetune_a_list_of_tasks_moe_random.sh "boolq piqa" models/random_routing moe_random
# Arguments and environment: example_scripts/finetuning.sh.
set -aeuo pipefail

# In the environment, or written here, such as DATA_DIR=path/to/gym; `set -a` passes them on to other scripts.
MODEL=${MODEL:-}
DATA_DIR=${DATA_DIR:-}
SPLIT=${SPLIT:-}
set +a

default_checkpoint=models/random_routing default_identifier=moe_random training_script=train_random_routing.sh
source "$(dirname "${BASH_SOURCE[0]}")/finetuning.sh"

finetune --moe_init --moe_random_route --init_dir "$CHECKPOINT" "$@"
