#!/usr/bin/env bash
# The method of the paper: stage 1 learns routes, a merge resets the experts to BART, stage 2 trains them along these.
#   bash example_scripts/run_two_stage.sh --train_dir data/gym --output_dir models/two_stage
#   bash example_scripts/run_two_stage.sh --train_dir data/gym --stage1 models/moe        keeps the routes of this run
#   bash example_scripts/run_two_stage.sh --small                                on generated tasks, 4 minutes on a CPU
# Writes OUTPUT_DIR/stage1, OUTPUT_DIR/init (the merge) and the run folder of stage 2. The same command continues.
#   --stage1_flags "..."   flags of `routing-moe train` for stage 1 only; further flags are for both stages
#   --total_steps N, --stage2_steps N   steps of the stages (30000, twice as many); --model: the BART of both stages
#   --plugin PLUGIN   Python file with routers or selections of your own, for both stages
# Variables: DATA_DIR, SPLIT, TASKVECS, OUTPUT_DIR, PROCESSES.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ARGS=("$@") && take_data
take --output_dir OUT "${OUTPUT_DIR:-models/two_stage}"
take --stage1 STAGE1 ""
take --stage1_flags STAGE1_FLAGS ""
take --taskvecs TASKVECS "${TASKVECS:-}"
take --plugin PLUGIN ""
DATA+=(${PLUGIN:+--plugin "$PLUGIN"})
take --model BART "${SMALL_MODEL[1]:-}"
take --total_steps STEPS "$(or_small 30000 1250)"
take --stage2_steps STEPS2 "$(or_small $((2 * STEPS)) "$STEPS")"

[ -n "$STAGE1" ] || routing-moe train --resume "${DATA[@]}" ${TASKVECS:+--taskvecs "$TASKVECS"} --num_experts 3 \
    --eval_period 750 --train_batch_size 16 --gradient_accumulation_steps 2 \
    --learning_rate 1e-5 --router_lr 1e-3 --task_model_lr 1e-2 "${SMALL_TRAIN[@]}" ${SMALL:+--init_eps 1e-2} "${ARGS[@]}" \
    --model "${BART:-facebook/bart-base}" --total_steps "$STEPS" --output_dir "$OUT/stage1" $STAGE1_FLAGS

routing-moe merge --routes_from "${STAGE1:-$OUT/stage1}" ${BART:+--model "$BART"} --init_eps 1e-8 --keep_existing \
    ${PLUGIN:+--plugin "$PLUGIN"} --output_dir "$OUT"

# From the average of the experts (temperature 300) to the learned routes (1), which it reaches after 95% of the steps.
routing-moe train --resume "${DATA[@]}" --checkpoint_name init --train_batch_size 16 --gradient_accumulation_steps 2 \
    --learning_rate 1e-5 "${SMALL_TRAIN[@]}" --no_eval_until $((STEPS2 / 4)) --eval_period $(((STEPS2 + 19) / 20)) \
    "${ARGS[@]}" --router_mode softmax --router_lr 0 --task_model_lr 0 --initial_tau 300 --minimum_tau 1 \
    --anneal_rate "$(awk "BEGIN { print 6 / $STEPS2 }")" --total_steps "$STEPS2" --output_dir "$OUT"
