#!/usr/bin/env bash
# Routings and one BART on tasks that contradict each other, at the learning rates of docs/results/protocols/conflict.md.
#   bash example_scripts/compare_conflict.sh --small            one gym, 4 variants, 5 minutes on 2 cores
#   JOBS=4 CONFLICT=0.5 bash example_scripts/compare_conflict.sh        skills disagree on half of the rows; ten gyms
# Writes OUTPUT_DIR/overview.csv, comparison.csv and the runs. Further flags: `routing-moe train`.
# A variant of your own is a line in FLAGS; the first of VARIANTS is the baseline.
# Variables: CONFLICT (0, 0.25, 0.5 or 1), SEEDS, VARIANTS, OUTPUT_DIR, JOBS (2), GYM_FLAGS (`routing-moe conflict-gym`),
# steps: STEPS, DENSE_STEPS, DELTA_STEPS, FLOPS_STEPS.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
CONFLICT=${CONFLICT:-1} OUT=${OUTPUT_DIR:-models/compare_conflict/conflict$CONFLICT} JOBS=${JOBS:-2}
SEEDS=${SEEDS:-$(or_small "201 202 203 204 205 206 207 208 209 210" "201")}
VARIANTS=${VARIANTS:-$(or_small "dense dense_flops dense_2x dense_4x dense_8x dense_total average learned softmax per_task
    per_task_shared cross_loss cross_loss_lora true_groups true_groups_shared oracle" "dense learned cross_loss oracle")}
case $CONFLICT in # steps of all; rate of one BART, average experts, learned routes, and of long runs; steps of deltas
    1) STEPS=${STEPS:-1300} RATE=6e-3 LONG_RATE=6e-3 ;;
    0.25 | 0.5) STEPS=${STEPS:-1250} RATE=12e-3 LONG_RATE=24e-3 DELTA_STEPS=${DELTA_STEPS:-300} ;;
    0) STEPS=${STEPS:-1300} RATE=1.5e-3 LONG_RATE=1.5e-3 ;;
    *) fail "CONFLICT is $CONFLICT; rates are known for 0, 0.25, 0.5 and 1" ;;
esac
DENSE_STEPS=${DENSE_STEPS:-$((STEPS > 1000 ? 700 : STEPS / 2))} # of the BART that cross_loss starts from, its own, too
MIXTURE="--num_experts 4 --init_eps 1e-2"
LEARNED="$MIXTURE --learning_rate $RATE --router_lr 1e-2 --task_model_lr 1e-2 --taskvecs_dim 16 --minimum_tau 0.3
    --anneal_rate $(awk "BEGIN { print 2.3 / $STEPS }")"
DELTA_STEPS=${DELTA_STEPS:-$((STEPS * 3 / 25 < 150 ? STEPS * 3 / 25 : 150))}
FROM_DENSE="--vanilla_checkpoint CROSS_LOSS/dense --hide_task_names --learning_rate 12e-3
    --total_steps $((STEPS - DENSE_STEPS))"
declare -A FLAGS=(
    [dense]="--num_experts 1 --learning_rate $RATE"
    [dense_flops]="--num_experts 1 --learning_rate $RATE --total_steps ${FLOPS_STEPS:-$((STEPS * 31 / 25))}"
    [dense_2x]="--num_experts 1 --learning_rate $RATE --total_steps $((2 * STEPS))"
    [dense_4x]="--num_experts 1 --learning_rate $LONG_RATE --total_steps $((4 * STEPS))"
    [dense_8x]="--num_experts 1 --learning_rate $LONG_RATE --total_steps $((8 * STEPS))"
    [dense_total]="--num_experts 1 --learning_rate $(awk "BEGIN { print $RATE / 4 }") --model WIDE"
    [average]="$MIXTURE --avg_routing --learning_rate $RATE"
    [learned]="$LEARNED"
    [softmax]="$LEARNED --router_mode softmax"
    [cross_loss]="--learning_rate 6e-3 --base_lr 12e-3 --delta_rate 12e-3 --dense_steps $DENSE_STEPS
        --delta_steps $DELTA_STEPS"
    [cross_loss_lora]="--vanilla_checkpoint CROSS_LOSS/deltas --task_routes CROSS_LOSS/deltas/transfer/groups.json
        --hide_task_names --expert_kind lora --lora_rank 4 --lora_alpha 4 --learning_rate 24e-3 --shared_base
        --base_lr 12e-3 --total_steps $((STEPS - DENSE_STEPS - DELTA_STEPS))"
    [per_task]="--task_routes tasks $FROM_DENSE"
    [per_task_shared]="--task_routes tasks $FROM_DENSE --shared_base"
    [true_groups]="--task_routes GYM/skill_routes.json $FROM_DENSE"
    [true_groups_shared]="--task_routes GYM/skill_routes.json $FROM_DENSE --shared_base"
    [oracle]="--init_eps 1e-2 --task_routes GYM/oracle_routes.json --learning_rate 6e-3"
)
known FLAGS $VARIANTS
read -rd '' -a GYM <<<"${GYM_FLAGS:-}" || true
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

for seed in $SEEDS; do # a gym, and untrained BARTs whose words are those of the gym
    run "$OUT/gyms/$seed/split.json" routing-moe conflict-gym --conflict "$CONFLICT" --seed "$seed" \
        "${GYM[@]}" --output_dir "$OUT/gyms/$seed"
done | in_parallel
for seed in $SEEDS; do for width in 16 $([[ $VARIANTS != *dense_total* ]] || echo 64); do
    run "$OUT/barts$width/$seed/config.json" routing-moe conflict-gym bart --gym "$OUT/gyms/$seed" --width $width \
        --seed "$seed" --output_dir "$OUT/barts$width/$seed"
done; done | in_parallel

trainings() { # NAME ...: a command for each gym and variant
    for seed in $SEEDS; do for name in "$@"; do
        local gym=$OUT/gyms/$seed dir=$OUT/runs/$name/seed$seed found=$OUT/runs/cross_loss/seed$seed
        local flags=${FLAGS[$name]//GYM/$gym}
        flags=${flags//CROSS_LOSS/$found} flags=${flags//WIDE/$OUT/barts64/$seed}
        # Without contested rows there are no deltas.
        [ ! -f "$found/deltas/transfer/groups.json" ] || [ -d "$found/deltas/best" ] || flags=${flags//deltas /dense }
        read -rd '' -a flags <<<"$flags" || true
        flags=(--train_dir "$gym" --model "$OUT/barts16/$seed" --max_input_length 16 --max_output_length 8 --num_beams 1
            --train_batch_size 64 --gradient_accumulation_steps 2 --max_grad_norm 100 --eval_period $((STEPS / 4))
            --total_steps "$STEPS" "${flags[@]}" --seed "$seed" "${MORE[@]}" --output_dir "$dir")
        case $name in
            cross_loss) run "$dir/$UNSEEN" bash example_scripts/run_cross_loss_routing.sh "${flags[@]}" ;;
            *) run "$dir/$SCORES" routing-moe train --resume "${flags[@]}" ;;
        esac
    done; done
}
MORE=("$@") FIRST=() SECOND=() # the second ones start from runs of cross_loss
for name in $VARIANTS; do
    if [[ ${FLAGS[$name]} = *CROSS_LOSS* ]]; then SECOND+=("$name"); else FIRST+=("$name"); fi
done
[ -z "${SECOND[*]}" ] || [[ " $VARIANTS " = *" cross_loss "* ]] || fail "VARIANTS: ${SECOND[*]} start from cross_loss"
trainings "${FIRST[@]}" | in_parallel
[ -z "${SECOND[*]}" ] || trainings "${SECOND[@]}" | in_parallel
for seed in $SEEDS; do for name in $VARIANTS; do
    flags=()
    [[ $name != per_task* && $name != cross_loss_lora ]] || flags=(--task_routes lowest_loss)
    unseen "$OUT/runs/$name/seed$seed" "${flags[@]}"
done; done | in_parallel

routing-moe compare "$OUT/runs" --gym_per_seed --recovery skill --order $VARIANTS --baseline "${VARIANTS%% *}" \
    --columns cost dev test unseen $(or_small categories "") --output_dir "$OUT" || FAILED=1
[ -n "$DRY_RUN" ] || grep -E "^(${VARIANTS// /|}) " <<EOT || true
dense               one BART. The same input has another answer in another task, and only the task's name says which.
dense_flops         the same with the FLOPs of cross_loss: a quarter more steps.
dense_2x            the same for 2, 4 or 8 times as many steps; CONFLICT 0.25 and 0.5: 4 and 8 at twice the rate.
dense_4x
dense_8x
dense_total         one BART with as many parameters as an expert for each skill.
average             4 experts in each layer, all of equal weight.
learned             4 experts; a router learns the expert of each task and layer (straight-through Gumbel), as in the paper.
softmax             the same with weights instead of one expert.
per_task            an expert for each task, from the BART without task names of cross_loss.
per_task_shared     the same, with a base that all experts share.
cross_loss          tasks whose low-rank deltas help each other share an expert; no router.
cross_loss_lora     the same groups; the experts are of low rank.
true_groups         an expert for each skill, otherwise as per_task.
true_groups_shared  the same, with a base that all experts share: cross_loss if all groups were right and cost nothing.
oracle              4 experts; the true route of each task is given: what perfect routes would bring.
EOT
exit "$FAILED"
