#!/usr/bin/env bash
# Stage 2 of two: trains the experts of OUTPUT_DIR/init (written by build_a_checkpoint2.sh) with frozen router and
# task vectors, while routes are annealed from the average of the experts (temperature 300) to the routes learned in
# stage 1 (temperature 1). Without variables: on the embedded gym, after training stage 1 if necessary.
# Environment (default), in addition to that of recipe.sh (OUTPUT_DIR: models/two_stage; MODEL, which hyperparameters go
# with: the plain BART that the checkpoint's experts are copies of):
#   STAGE2_STEPS          optimizer steps (2 * TOTAL_STEPS: 60000, as published; of an embedded BART TOTAL_STEPS)
#   STAGE2_LEARNING_RATE  peak learning rate (LEARNING_RATE)
#   STAGE2_EVAL_PERIOD    steps between evaluations (1/20 of the steps: 3000; of an embedded BART EVAL_PERIOD)
#   STAGE2_NO_EVAL_UNTIL  no evaluation before this step (a quarter of the steps: 15000)
# Further arguments are flags of `python -m routing_moe.cli.train`, such as --resume, but not those that the
# checkpoint defines (--model, --num_experts, --taskvecs, ...).
set -aeuo pipefail

# In the environment, or written here, such as DATA_DIR=path/to/gym; `set -a` passes them on to other scripts.
MODEL=${MODEL:-}
DATA_DIR=${DATA_DIR:-}
SPLIT=${SPLIT:-}
OUTPUT_DIR=${OUTPUT_DIR:-models/two_stage}
set +a

source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
if [ -f "$OUTPUT_DIR/init/config.json" ]; then
    recipe "$OUTPUT_DIR/init"
else
    recipe
    if [ -z "$embedded" ]; then
        echo "error: $OUTPUT_DIR/init: no such checkpoint; write it with build_a_checkpoint2.sh" >&2
        exit 2
    fi
    announce_two_stages "model $MODEL" "$@"
    bash example_scripts/build_a_checkpoint2.sh
fi
for flag in "$@"; do
    case $flag in
        --total_steps* | --anneal_rate*)
            echo "error: $flag: the annealing is computed from the number of steps; set STAGE2_STEPS instead" >&2
            exit 2
            ;;
    esac
done

recipe_of_stage2

# 300 * exp(-6) < 1: the temperature reaches its minimum after 95% of the steps, for any number of steps.
train \
    --checkpoint_name init \
    --router_mode softmax \
    --router_lr 0 \
    --task_model_lr 0 \
    --initial_tau 300 \
    --minimum_tau 1 \
    --anneal_rate "$(awk "BEGIN { print 6 / $TOTAL_STEPS }")" \
    --no_eval_until "${STAGE2_NO_EVAL_UNTIL:-$((TOTAL_STEPS / 4))}" \
    "$@"
