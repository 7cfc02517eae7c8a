#!/usr/bin/env bash
# Stage 2 alone: trains the experts of OUTPUT_DIR/init, which build_a_checkpoint2.sh writes, along its frozen routes.
#   bash example_scripts/run_merged_fisher128freeze_1e-5.sh --train_dir data/gym --output_dir models/two_stage
# Routes go from the average of the experts (temperature 300) to the learned ones (1), within 95% of --total_steps.
# Writes a run folder. Further flags: `routing-moe train`. Variables: DATA_DIR, SPLIT, OUTPUT_DIR, PROCESSES.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ARGS=("$@") && take_data
take --total_steps STEPS "$(or_small 60000 1000)"

routing-moe train --resume "${DATA[@]}" --checkpoint_name init --train_batch_size 16 --gradient_accumulation_steps 2 \
    --learning_rate 1e-5 --output_dir "${OUTPUT_DIR:-models/two_stage}" "${SMALL_TRAIN[@]}" \
    --router_mode softmax --router_lr 0 --task_model_lr 0 --initial_tau 300 --minimum_tau 1 \
    --anneal_rate "$(awk "BEGIN { print 6 / $STEPS }")" --total_steps "$STEPS" \
    --no_eval_until $((STEPS / 4)) --eval_period $(((STEPS + 19) / 20)) "${ARGS[@]}"
