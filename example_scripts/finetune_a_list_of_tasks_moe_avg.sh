#!/usr/bin/env bash
# Fine-tune a mixture on a list of tasks: finetune_a_list_of_tasks_moe_avg.sh TASKS CHECKPOINT IDENTIFIER [FLAGS].
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.finetuning moe_avg "$@"
