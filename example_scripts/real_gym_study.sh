#!/usr/bin/env bash
# On your own gym: what do dividing the tasks, their groups and a router gain over one model? All arms continue the same
# run of one BART for as many steps again; groups by gradients have random groups of the same sizes as their control.
#   JOBS=4 bash example_scripts/real_gym_study.sh --train_dir data/gym --model facebook/bart-base
# Writes OUTPUT_DIR/runs/<arm>/seed<seed>/ and comparison.csv: answer loss and rank accuracy with intervals. Tune RATE on
# dev files of other seeds before you trust a difference. Further flags are those of `routing-moe train` for all runs.
# Variables: OUTPUT_DIR, SEEDS, ARMS, STEPS, RATE, JOBS; DATA_DIR, SPLIT.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ARGS=("$@") && take_data
take --model MODEL "${SMALL_MODEL[1]:-}"
[ -n "$MODEL" ] || fail "give --model, such as facebook/bart-base"
take_runs models/real_gym "42 43 44 45 46" && STEPS=${STEPS:-480} RATE=${RATE:-2.5e-4}
QUARTER=$((STEPS / 4)) GROUPS_OF="--taskvecs $OUT/vectors/@SEED --task_routes"
declare -A FLAGS=(
    [multitask]="--num_experts 1"
    [gradient]="$GROUPS_OF clusters:8"
    [random]="$GROUPS_OF random:clusters:8"
    [learned]="--num_experts 3 --init_eps 1e-3 --router_lr 1e-2 --task_model_lr 1e-2 --minimum_tau .3 --anneal_rate .005"
)
ARMS=${ARMS:-multitask gradient random learned}
known FLAGS $ARMS
TRAIN=(routing-moe train --resume "${DATA[@]}" --model "$MODEL" --train_batch_size 16 --gradient_accumulation_steps 2
    --max_input_length 128 --max_output_length 64 --num_beams 1 --scoring rank --select_by answer_loss --no_text_vectors
    --measures answer_loss rank_accuracy performance --eval_max_examples 50 --predict_max_examples 50
    --total_steps "$STEPS")

for seed in $SEEDS; do # the run that all arms continue
    run "$OUT/dense/seed$seed/$SCORES" "${TRAIN[@]}" --num_experts 1 --learning_rate 5e-4 \
        --eval_period "$STEPS" --seed $((seed + 1000)) "${ARGS[@]}" \
        --output_dir "$OUT/dense/seed$seed"
done | in_parallel
for seed in $SEEDS; do
    run "$OUT/vectors/seed$seed/meta.json" routing-moe vectors gradient --model "$OUT/dense/seed$seed" "${DATA[@]}" "${SKIP[@]}" \
        --weights layers --tasks train --output_dir "$OUT/vectors/seed$seed"
done | in_parallel
for seed in $SEEDS; do for arm in $ARMS; do
    read -ra flags <<<"${FLAGS[$arm]//@SEED/seed$seed}"
    run "$OUT/runs/$arm/seed$seed/$SCORES" "${TRAIN[@]}" --learning_rate "$RATE" \
        --vanilla_checkpoint "$OUT/dense/seed$seed" --eval_period $QUARTER "${flags[@]}" --seed "$seed" "${ARGS[@]}" \
        --output_dir "$OUT/runs/$arm/seed$seed"
done; done | in_parallel

contrasts=()
[[ " $ARMS " != *" gradient "* || " $ARMS " != *" random "* ]] || contrasts=(--contrasts gradient:random)
routing-moe compare "$OUT/runs" --columns categories --measures answer_loss rank_accuracy --baseline "${ARMS%% *}" \
    --order $ARMS "${contrasts[@]}" --output_dir "$OUT" || FAILED=1
exit "$FAILED"
