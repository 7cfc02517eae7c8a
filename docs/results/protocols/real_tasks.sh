#!/usr/bin/env bash
# The runs of docs/results/real_tasks.md: ways to spend the same steps from the same BART. The same command continues.
#   GYM=data/gym SPLIT=split.json BART=models/english_bart bash docs/results/protocols/real_tasks.sh
#   PART=tune ARMS="per_task random_groups" RATES="1e-3 2e-3 4e-3" ... bash docs/results/protocols/real_tasks.sh
# PART: groups (of all seeds), tune or arms (all). Further variables: OUTPUT_DIR, SEEDS, TUNE_SEEDS, ARMS, JOBS (2),
# DENSE_STEPS, DELTA_STEPS, STEPS, SCORED (rows of each file), TRUE_GROUPS (a file of routes). Further flags:
# `routing-moe train`, such as --mixed_precision bf16 --micro_batch_overhead 1000 on a CPU with AMX.
source "$(dirname "${BASH_SOURCE[0]}")/../../../example_scripts/setup.sh"
for name in GYM SPLIT BART; do [ -n "${!name:-}" ] || fail "no $name: give GYM=FOLDER SPLIT=FILE.json BART=FOLDER"; done
OUT=${OUTPUT_DIR:-models/real_tasks} JOBS=${JOBS:-2} PART=${PART:-groups arms}
[[ $PART != *tune* || -n ${RATES:-} ]] || fail 'PART=tune needs RATES, such as RATES="1e-3 2e-3 4e-3"'
SEEDS=${SEEDS-51 52 53 54 55 56 57 58} TUNE_SEEDS=${TUNE_SEEDS-49 50}
DENSE_STEPS=${DENSE_STEPS:-240} DELTA_STEPS=${DELTA_STEPS:-160} STEPS=${STEPS:-480}
declare -A RATE=([one_bart]=2.5e-4 [one_delta]=1e-3 [one_wide_delta]=2.5e-4 [per_task]=1e-3 [random_groups]=1e-3
    [cross_loss_groups]=1e-3 [true_groups]=1e-3)
BASE_RATE=${BASE_RATE:-${RATE[one_bart]}} # of what experts share
delta() { echo "--expert_kind lora --lora_rank $1 --lora_alpha $1 --base_lr $BASE_RATE"; }
declare -A FLAGS=(
    [one_bart]="--num_experts 1"
    [one_delta]="--num_experts 1 $(delta 16)"
    [one_wide_delta]="--num_experts 1 $(delta 320)" # as many parameters as per_task has for 80 tasks
    [per_task]="--task_routes tasks $(delta 4)"
    [random_groups]="--task_routes random:GROUPS $(delta 16)" # as many groups, of the same sizes
    [cross_loss_groups]="--task_routes GROUPS $(delta 16)"
    [true_groups]="--task_routes ${TRUE_GROUPS:-} $(delta 16)"
)
ARMS=${ARMS:-one_bart one_delta one_wide_delta per_task random_groups cross_loss_groups}
known FLAGS $ARMS
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
TEXTS=(--train_dir "$GYM" --custom_tasks_splits "$SPLIT" --model "$BART" --do_lowercase --max_input_length 128
    --max_output_length 64 --skip_malformed --train_batch_size 16 --gradient_accumulation_steps 2 --no_text_vectors "$@")
SCORING=(--scoring rank --measures answer_loss rank_accuracy --num_beams 1 --predict_max_examples "${SCORED:-20}")

train() { # STEPS SEED FLAGS ...: routing-moe train --resume, one evaluation at the end
    echo routing-moe train --resume "${TEXTS[@]}" --select_by answer_loss --total_steps "$1" --eval_period "$1" \
        --eval_max_examples "${SCORED:-20}" --seed "$2" "${@:3}"
}
arms() { # FOLDER SEEDS FLAGS ...: a command for each arm and seed
    for seed in $2; do for name in $ARMS; do
        flags=${FLAGS[$name]//GROUPS/$OUT/deltas/seed$seed/transfer/groups.json}
        run "$1/$name/seed$seed/$RESULT" $(train "$STEPS" "$seed" $flags --learning_rate "${RATE[$name]}" \
            --vanilla_checkpoint "$OUT/dense/seed$seed" --output_dir "$1/$name/seed$seed" "${@:3}")
    done; done
}

if [[ $PART = *groups* ]]; then
    for seed in $TUNE_SEEDS $SEEDS; do # with another order of batches than the arms
        run "$OUT/dense/seed$seed/cost.json" $(train "$DENSE_STEPS" $((seed + 1000)) --do_train --num_experts 1 \
            --learning_rate 5e-4 --output_dir "$OUT/dense/seed$seed")
    done | in_parallel
    for seed in $TUNE_SEEDS $SEEDS; do
        run "$OUT/deltas/seed$seed/cost.json" $(train "$DELTA_STEPS" "$seed" --do_train --task_routes tasks $(delta 4) \
            --learning_rate 2e-3 --contested_above 1 --vanilla_checkpoint "$OUT/dense/seed$seed" \
            --output_dir "$OUT/deltas/seed$seed")
    done | in_parallel
    for seed in $TUNE_SEEDS $SEEDS; do # groups in any case, also where `transfer` would find one
        run "$OUT/deltas/seed$seed/transfer/groups.json" routing-moe transfer "$OUT/deltas/seed$seed" --rows 8 \
            --advantage -100
    done | in_parallel
fi
RESULT=losses.csv
if [[ $PART = *tune* ]]; then
    for rate in $RATES; do
        for name in $ARMS; do RATE[$name]=$rate; done
        arms "$OUT/tuning/$rate" "$TUNE_SEEDS" --do_train
    done | in_parallel
fi
RESULT=$SCORES
[[ $PART != *arms* ]] || arms "$OUT/arms" "$SEEDS" --do_train --do_predict "${SCORING[@]}" | in_parallel
exit "$FAILED"
