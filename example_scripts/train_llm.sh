#!/usr/bin/env bash
# Low-rank experts of a decoder-only model (Qwen, Llama, Mistral, SmolLM), mixed by a learned router.
#   bash example_scripts/train_llm.sh --train_dir data/gym     (--small: the embedded gym, and a tiny BART in its place)
#   bash example_scripts/train_llm.sh --train_dir data/gym --model Qwen/Qwen2.5-0.5B-Instruct --prompt_format chat
# 8 GB of GPU memory are enough for these, 24 GB for --model Qwen/Qwen2.5-7B (computed: docs/backbones.md).
# Writes a run folder. Further flags: `routing-moe train`. Variables: DATA_DIR, SPLIT, TASKVECS, OUTPUT_DIR, PROCESSES.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ARGS=("$@") && take_data

routing-moe train --resume "${DATA[@]}" ${TASKVECS:+--taskvecs "$TASKVECS"} --model Qwen/Qwen2.5-0.5B \
    --base_dtype bfloat16 --gradient_checkpointing \
    --expert_kind lora --num_experts 8 --lora_rank 8 --router_mode softmax \
    --total_steps 10000 --eval_period 500 --train_batch_size 16 --gradient_accumulation_steps 2 \
    --learning_rate 5e-4 --router_lr 1e-3 --task_model_lr 1e-2 --num_beams 1 \
    --output_dir "${OUTPUT_DIR:-models/llm}" "${SMALL_TRAIN[@]}" ${SMALL:+--base_dtype float32} "${ARGS[@]}"
