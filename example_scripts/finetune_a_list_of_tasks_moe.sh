#!/usr/bin/env bash
# Fine-tunes a mixture on each of a list of tasks, as finetune_a_list_of_tasks.sh does it with a plain BART.
#   DATA_DIR=data/gym bash example_scripts/finetune_a_list_of_tasks_moe.sh test models/two_stage adapted
# TASKS CHECKPOINT IDENTIFIER [flags of `routing-moe finetune`]; CHECKPOINT: a run, or a folder of the published code.
small=()
while [[ $1 = --* ]]; do small+=("$1") && shift; done # --small, --dry_run
exec bash "$(dirname "${BASH_SOURCE[0]}")/finetune_a_list_of_tasks.sh" "${small[@]}" "${@:1:3}" --moe_init "${@:4}"
