#!/usr/bin/env bash
# Routings and one BART on tasks that contradict each other, at the learning rates of docs/results/protocols/conflict.md.
#   bash example_scripts/compare_conflict.sh --small            one gym, 5 variants, 6 minutes on 2 cores
#   JOBS=4 CONFLICT=0.5 bash example_scripts/compare_conflict.sh        skills disagree on half of the rows; ten gyms
# Writes OUTPUT_DIR/overview.csv, comparison.csv and runs. Further flags: `routing-moe train`. A variant is a line in FLAGS.
# Variables: CONFLICT (0, 0.25, 0.5 or 1), SEEDS, VARIANTS (first: baseline), STEPS, OUTPUT_DIR, JOBS (2).
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
CONFLICT=${CONFLICT:-1} JOBS=${JOBS:-2} ARGS=("$@")
take_runs "models/compare_conflict/conflict$CONFLICT" "$(or_small "201 202 203 204 205 206 207 208 209 210" 201)"
VARIANTS=${VARIANTS:-dense dense_flops learned cross_loss oracle}
case $CONFLICT in # steps of all; rate of one BART and of learned routes; part of the steps for deltas of tasks
    1) STEPS=${STEPS:-1300} RATE=6e-3 DELTA_STEPS=$((STEPS * 3 / 26)) ;;
    0.25 | 0.5) STEPS=${STEPS:-1250} RATE=12e-3 DELTA_STEPS=$((STEPS * 6 / 25)) ;;
    0) STEPS=${STEPS:-1300} RATE=1.5e-3 DELTA_STEPS=$((STEPS * 3 / 26)) ;;
    *) fail "CONFLICT is $CONFLICT; rates are known for 0, 0.25, 0.5 and 1" ;;
esac
declare -A FLAGS=(
    [dense]="--num_experts 1 --learning_rate $RATE"
    [dense_flops]="--num_experts 1 --learning_rate $RATE --total_steps $((STEPS * 31 / 25))"
    [learned]="--num_experts 4 --init_eps 1e-2 --learning_rate $RATE --router_lr 1e-2 --task_model_lr 1e-2
        --taskvecs_dim 16 --minimum_tau 0.3 --anneal_rate $(awk "BEGIN { print 2.3 / $STEPS }")"
    [cross_loss]="--learning_rate 6e-3 --base_lr 12e-3 --delta_rate 12e-3 --delta_steps $DELTA_STEPS
        --dense_steps $((STEPS > 1000 ? 700 : STEPS / 2))"
    [oracle]="--init_eps 1e-2 --task_routes GYM/oracle_routes.json --learning_rate 6e-3"
)
known FLAGS $VARIANTS
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

for seed in $SEEDS; do # a gym, and an untrained BART whose words are those of the gym
    run "$OUT/gyms/$seed/split.json" routing-moe conflict-gym --conflict "$CONFLICT" --seed "$seed" \
        --output_dir "$OUT/gyms/$seed"
done | in_parallel
for seed in $SEEDS; do
    run "$OUT/barts/$seed/config.json" routing-moe conflict-gym bart --gym "$OUT/gyms/$seed" --seed "$seed" \
        --output_dir "$OUT/barts/$seed"
done | in_parallel
for seed in $SEEDS; do for name in $VARIANTS; do
    gym=$OUT/gyms/$seed dir=$OUT/runs/$name/seed$seed
    read -rd '' -a flags <<<"${FLAGS[$name]//GYM/$gym}" || true
    flags=(--train_dir "$gym" --model "$OUT/barts/$seed" "${SHORT[@]}"
        --train_batch_size 64 --gradient_accumulation_steps 2 --max_grad_norm 100 --eval_period $((STEPS / 4))
        --total_steps "$STEPS" "${flags[@]}" --seed "$seed" "${ARGS[@]}" --output_dir "$dir")
    case $name in
        cross_loss) run "$dir/$UNSEEN" bash example_scripts/run_cross_loss_routing.sh "${flags[@]}" ;;
        *) run "$dir/$SCORES" routing-moe train --resume "${flags[@]}" ;;
    esac
done; done | in_parallel
for seed in $SEEDS; do for name in $VARIANTS; do unseen "$OUT/runs/$name/seed$seed"; done; done | in_parallel

routing-moe compare "$OUT/runs" --gym_per_seed --recovery skill --order $VARIANTS --baseline "${VARIANTS%% *}" \
    --columns cost dev test unseen $(or_small categories "") --output_dir "$OUT" || FAILED=1
[ -n "$DRY_RUN" ] || grep -E "^(${VARIANTS// /|}) " <<EOT || true
dense               one BART. The same input has another answer in another task, and only the task's name says which.
dense_flops         the same with the FLOPs of cross_loss: a quarter more steps.
learned             4 experts; a router learns the expert of each task and layer (straight-through Gumbel), as in the paper.
cross_loss          tasks whose low-rank deltas help each other share an expert; no router.
oracle              4 experts; the true route of each task is given: what perfect routes would bring.
EOT
exit "$FAILED"
