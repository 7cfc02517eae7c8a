#!/usr/bin/env bash
# Low-rank experts of a decoder-only model (Qwen, Llama, SmolLM, Gemma, Phi), mixed by a learned router.
#   bash example_scripts/train_llm.sh --train_dir data/gym
#   bash example_scripts/train_llm.sh --train_dir data/gym --model Qwen/Qwen2.5-0.5B-Instruct --prompt_format chat
#   bash example_scripts/train_llm.sh --small      on a laptop: models/smollm2 of get_smollm2.sh, four short tasks
# 8 GB of GPU memory are enough for these, 24 GB for --model Qwen/Qwen2.5-7B (computed: docs/backbones.md).
# Writes a run folder. Further flags: `routing-moe train`. Variables: DATA_DIR, SPLIT, TASKVECS, OUTPUT_DIR, PROCESSES.
[[ ${1:-} != --small ]] || export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(getconf _NPROCESSORS_ONLN)} # it is not tiny
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ARGS=("$@")
[ -z "$SMALL" ] || DATA_DIR=example_scripts/four_tasks
take_data && take --model MODEL "$(or_small Qwen/Qwen2.5-0.5B models/smollm2)"
SMALL_LLM=()
if [ -n "$SMALL" ]; then
    [[ $MODEL != models/smollm2 || -e $MODEL || -n $DRY_RUN ]] || fail "there is no $MODEL; this brings it: bash example_scripts/get_smollm2.sh"
    SMALL_LLM=(--prompt_format chat --max_input_length 64 --max_output_length 16 --num_experts 4
        --total_steps 60 --eval_period 30 --train_batch_size 8 --gradient_accumulation_steps 1
        --learning_rate 1e-3 --router_lr 1e-2 --anneal_rate 0.003 --eval_max_examples 8 --predict_max_examples 32)
fi

routing-moe train --resume "${DATA[@]}" ${TASKVECS:+--taskvecs "$TASKVECS"} --model "$MODEL" \
    --base_dtype "$(or_small bfloat16 float32)" $(or_small --gradient_checkpointing "") \
    --expert_kind lora --num_experts 8 --lora_rank 8 --router_mode softmax \
    --total_steps 10000 --eval_period 500 --train_batch_size 16 --gradient_accumulation_steps 2 \
    --learning_rate 5e-4 --router_lr 1e-3 --task_model_lr 1e-2 --num_beams 1 \
    --output_dir "${OUTPUT_DIR:-models/llm}" "${SMALL_LLM[@]}" "${ARGS[@]}"
