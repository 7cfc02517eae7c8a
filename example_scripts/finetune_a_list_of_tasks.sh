#!/usr/bin/env bash
# Fine-tunes a plain BART on each of a list of tasks: 5 samples x 3 learning rates x 3 batch sizes.
#   bash example_scripts/finetune_a_list_of_tasks.sh TASKS CHECKPOINT IDENTIFIER [flags of `routing-moe finetune`]
#   DATA_DIR=data/gym bash example_scripts/finetune_a_list_of_tasks.sh test models/multitask_bart multitask
#   bash example_scripts/finetune_a_list_of_tasks.sh --small test None direct
# TASKS: names or sections of the split, in one word. CHECKPOINT: a run, or None for facebook/bart-base itself.
# Writes OUTPUT_DIR (models/IDENTIFIER): a folder for each task, summary.csv. Finished configurations are kept.
# Variables: DATA_DIR, SPLIT, TASKVECS (--train_dir, --custom_tasks_splits, --taskvecs), OUTPUT_DIR.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
[[ $# -ge 3 && " $1 $2 $3" != *" --"* ]] || fail "give TASKS CHECKPOINT IDENTIFIER; the head of this script has examples"
TASKS=$1 CHECKPOINT=$2 IDENTIFIER=$3 ARGS=("${@:4}") && take_data
take --output_dir OUT "${OUTPUT_DIR:-models/$IDENTIFIER}"
START=(--model facebook/bart-base "${SMALL_MODEL[@]}") failed=""
if [[ " ${ARGS[*]} " = *" --moe_"* ]]; then
    START=(--moe_init --init_dir "$CHECKPOINT" ${TASKVECS:+--taskvecs "$TASKVECS"})
elif [ "$CHECKPOINT" != None ]; then
    START=(--checkpoint "$CHECKPOINT")
fi

tasks=$(routing-moe list-tasks --split "${SPLIT:-$DATA_DIR/split.json}" --gym "$DATA_DIR" $TASKS)
for task in $tasks; do
    [ -n "$DRY_RUN" ] || echo "Task: $task, checkpoint: $CHECKPOINT, results: $OUT"
    routing-moe finetune "${START[@]}" --task_dir "$DATA_DIR/$task" --output_dir "$OUT/singletask-$task" \
        --learning_rate_list 1e-5 2e-5 5e-5 --bsz_list 2 4 8 --gradient_accumulation_steps 1 \
        --total_steps 1000 --eval_period 100 --max_grad_norm 0.1 --weight_decay 0.01 \
        "${SMALL_FINETUNE[@]}" "${ARGS[@]}" || { [ $? -lt 128 ] || exit 130; failed+=" $task"; }
done
routing-moe collect-results --logs_dir "$OUT" --output_file "$OUT/summary.csv" || FAILED=$?
if [ -z "$failed" ]; then exit "$FAILED"; else fail "fine-tuning failed on$failed"; fi
