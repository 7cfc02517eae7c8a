#!/usr/bin/env bash
# Stage 2 of two: trains the experts of OUTPUT_DIR/init (written by build_a_checkpoint2.sh) with frozen router and
# task vectors, while routes are annealed from the average of the experts (temperature 300) to the routes learned in
# stage 1 (temperature 1). By default: on the embedded gym, after training stage 1 if necessary.
# Environment (default), in addition to that of recipe.sh (OUTPUT_DIR: models/two_stage):
#   STAGE2_STEPS          optimizer steps (TOTAL_STEPS; if MODEL is set, 2 * TOTAL_STEPS: 60000, as published)
#   STAGE2_LEARNING_RATE  peak learning rate (LEARNING_RATE)
#   STAGE2_EVAL_PERIOD    steps between evaluations (EVAL_PERIOD; if MODEL is set, 1/20 of the steps: 3000)
#   STAGE2_NO_EVAL_UNTIL  no evaluation before this step (a quarter of the steps: 15000)
# Further arguments are flags of `python -m routing_moe.cli.train`, such as --resume, but not those that the
# checkpoint defines (--model, --num_experts, --taskvecs, ...).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

OUTPUT_DIR=${OUTPUT_DIR:-models/two_stage}
if [ ! -f "$OUTPUT_DIR/init/config.json" ]; then
    if [ -n "${MODEL:-}" ]; then
        echo "error: $OUTPUT_DIR/init: no such checkpoint; write it with build_a_checkpoint2.sh" >&2
        exit 2
    fi
    OUTPUT_DIR=$OUTPUT_DIR bash example_scripts/build_a_checkpoint2.sh
fi
own_model=${MODEL:-}
source example_scripts/recipe.sh
for flag in "$@"; do
    case $flag in
        --total_steps* | --anneal_rate*)
            echo "error: $flag: the annealing is computed from the number of steps; set STAGE2_STEPS instead" >&2
            exit 2
            ;;
    esac
done

for name in STAGE2_STEPS STAGE2_EVAL_PERIOD; do
    if [ -n "${!name:-}" ]; then whole_numbers "$name"; fi
done
if [ -n "$own_model" ]; then
    steps=${STAGE2_STEPS:-$((2 * TOTAL_STEPS))}
    eval_period=$((steps < 20 ? 1 : steps / 20))
else
    steps=${STAGE2_STEPS:-$TOTAL_STEPS}
    eval_period=$EVAL_PERIOD
fi
LEARNING_RATE=${STAGE2_LEARNING_RATE:-$LEARNING_RATE} TOTAL_STEPS=$steps
EVAL_PERIOD=${STAGE2_EVAL_PERIOD:-$eval_period}

# 300 * exp(-6) < 1: the temperature reaches its minimum after 95% of the steps, for any number of steps. The limit on
# epochs must not end the run before.
train \
    --checkpoint_name init \
    --router_mode softmax \
    --router_lr 0 \
    --task_model_lr 0 \
    --initial_tau 300 \
    --minimum_tau 1 \
    --anneal_rate "$(awk "BEGIN { print 6 / $steps }")" \
    --num_train_epochs 1000000 \
    --no_eval_until "${STAGE2_NO_EVAL_UNTIL:-$((steps / 4))}" \
    "$@"
