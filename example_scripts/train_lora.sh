#!/usr/bin/env bash
# Low-rank experts of one frozen BART, T5, mBART or Pegasus, mixed by a learned router; many of them fit.
#   bash example_scripts/train_lora.sh --train_dir data/gym --num_experts 16      (--small: on generated tasks)
#   bash example_scripts/train_lora.sh --train_dir data/gym --model google/flan-t5-xl --num_experts 8 --lora_rank 8 \
#       --base_dtype bfloat16 --gradient_checkpointing
# 24 GB of GPU memory are enough for this one, or for flan-t5-base without the last line; 80 GB for flan-t5-xxl with it
# (computed, not measured: docs/backbones.md).
# Writes a run folder. Further flags: `routing-moe train`. Variables: DATA_DIR, SPLIT, TASKVECS, OUTPUT_DIR, PROCESSES.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ARGS=("$@") && take_data

routing-moe train --resume "${DATA[@]}" ${TASKVECS:+--taskvecs "$TASKVECS"} --model facebook/bart-base --num_experts 3 \
    --expert_kind lora --lora_rank 16 --router_mode softmax \
    --total_steps 30000 --eval_period 750 --train_batch_size 16 --gradient_accumulation_steps 2 \
    --learning_rate 1e-3 --router_lr 1e-3 --task_model_lr 1e-2 \
    --output_dir "${OUTPUT_DIR:-models/lora}" "${SMALL_TRAIN[@]}" ${SMALL:+--learning_rate 1e-2 --shared_base --base_lr 12e-3} "${ARGS[@]}"
