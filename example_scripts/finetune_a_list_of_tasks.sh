#!/usr/bin/env bash
# Fine-tune a plain BART on a list of tasks, from a multi-task checkpoint or from pre-trained BART (direct
# fine-tuning).
#   bash example_scripts/finetune_a_list_of_tasks.sh "boolq piqa" models/multitask_bart multitask
# Arguments and environment: example_scripts/finetuning.sh.
set -aeuo pipefail

# In the environment, or written here, such as DATA_DIR=path/to/gym; `set -a` passes them on to other scripts.
MODEL=${MODEL:-}
DATA_DIR=${DATA_DIR:-}
SPLIT=${SPLIT:-}
set +a

default_checkpoint=None default_identifier=direct
source "$(dirname "${BASH_SOURCE[0]}")/finetuning.sh"

finetune --checkpoint "$CHECKPOINT" "$@"
