#!/usr/bin/env bash
# Stage 1 of the paper: trains experts, router and task vectors together, then scores the train tasks.
#   bash example_scripts/train_routing_bart.sh --train_dir data/gym --output_dir models/moe
#   bash example_scripts/train_routing_bart.sh --small                on generated tasks, 2 minutes on a CPU
# Writes a run folder. Further flags: `routing-moe train`. Variables: DATA_DIR, SPLIT, TASKVECS, OUTPUT_DIR, PROCESSES.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ARGS=("$@") && take_data

routing-moe train --resume "${DATA[@]}" ${TASKVECS:+--taskvecs "$TASKVECS"} --model facebook/bart-base --num_experts 3 \
    --total_steps 30000 --eval_period 750 --train_batch_size 16 --gradient_accumulation_steps 2 \
    --learning_rate 1e-5 --router_lr 1e-3 --task_model_lr 1e-2 \
    --output_dir "${OUTPUT_DIR:-models/routing_bart}" "${SMALL_TRAIN[@]}" \
    ${SMALL:+--num_experts 4 --init_eps 1e-2} "${ARGS[@]}" # without noise, and without dropout, experts hardly diverge
