#!/usr/bin/env bash
# Task vectors for --taskvecs of training, with the published settings where there are any.
#   bash example_scripts/task_vectors.sh METHOD --train_dir data/gym      METHOD: random, text, finetuned-text, fisher,
#   bash example_scripts/task_vectors.sh --small gradient                 gradient or descriptions
# Writes OUTPUT_DIR (data/task_vectors/METHOD): id2task.json, task_vecs.npy. Further flags: `routing-moe vectors METHOD`.
# Variables: DATA_DIR, SPLIT, OUTPUT_DIR (--train_dir, --custom_tasks_splits, --output_dir).
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
[ $# -ge 1 ] || fail "give a METHOD: random, text, finetuned-text, fisher, gradient or descriptions"
METHOD=${1//_/-} ARGS=("${@:2}") && take_data
FLAGS=("${DATA[@]}" --output_dir "${OUTPUT_DIR:-data/task_vectors/$METHOD}")
MODEL=(--model facebook/bart-base "${SMALL_MODEL[@]}" ${SMALL:+--max_input_length 16})
ROWS=(${SMALL:+--max_output_length 8 --samples all --max_examples 160}) # labelled rows, as many of each task

case $METHOD in
    random) routing-moe vectors random "${FLAGS[@]}" --taskvecs_dim 768 "${ARGS[@]}" ;;
    descriptions)
        routing-moe vectors descriptions --descriptions dataloader/descriptions.json \
            --custom_tasks_splits "${SPLIT:-$DATA_DIR/split.json}" "${FLAGS[@]: -2}" "${ARGS[@]}"
        ;;
    text) routing-moe vectors text "${FLAGS[@]}" --recipe published "${MODEL[@]}" "${ARGS[@]}" ;;
    gradient) routing-moe vectors gradient "${FLAGS[@]}" "${MODEL[@]}" "${ROWS[@]}" "${ARGS[@]}" ;;
    *) routing-moe vectors "$METHOD" "${FLAGS[@]}" --recipe published "${MODEL[@]}" "${ROWS[@]}" \
        ${SMALL:+--total_steps 100} "${ARGS[@]}" ;;
esac
