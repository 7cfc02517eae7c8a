#!/usr/bin/env bash
# Poly: low-rank experts whose factors are averaged by weights from a table of logits, one per task, layer and expert.
#   bash example_scripts/train_poly.sh --train_dir data/gym                       (--small: on generated tasks)
#   bash example_scripts/train_poly.sh --train_dir data/gym --lora_splits 4 --output_dir models/mhr      MHR
# Writes a run folder. Further flags: `routing-moe train`. Variables: DATA_DIR, SPLIT, OUTPUT_DIR, PROCESSES.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ARGS=("$@") && take_data

routing-moe train --resume "${DATA[@]}" --model facebook/bart-base \
    --num_experts 3 --expert_kind lora --lora_rank 16 --lora_mixing factors \
    --total_steps 30000 --eval_period 750 --train_batch_size 16 --gradient_accumulation_steps 2 \
    --learning_rate 1e-3 --task_model_lr 1e-2 --output_dir "${OUTPUT_DIR:-models/poly}" \
    "${SMALL_TRAIN[@]}" ${SMALL:+--learning_rate 1e-2 --shared_base --base_lr 12e-3} \
    --router_nn_type table --router_mode bernoulli --initial_tau 1 --minimum_tau 1 --anneal_rate 0 "${ARGS[@]}"
