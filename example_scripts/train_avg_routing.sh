#!/usr/bin/env bash
# Baseline: the output of every layer is the mean of its experts' outputs, for all tasks.
#   bash example_scripts/train_avg_routing.sh --train_dir data/gym          (--small: on generated tasks)
# Writes a run folder. Further flags: `routing-moe train`. Variables: DATA_DIR, SPLIT, OUTPUT_DIR, PROCESSES.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ARGS=("$@") && take_data

routing-moe train --resume "${DATA[@]}" --model facebook/bart-base --num_experts 3 --avg_routing \
    --total_steps 30000 --eval_period 750 --train_batch_size 16 --gradient_accumulation_steps 2 --learning_rate 1e-5 \
    --output_dir "${OUTPUT_DIR:-models/avg_routing}" "${SMALL_TRAIN[@]}" "${ARGS[@]}"
