#!/usr/bin/env bash
# Low-rank experts of a pre-trained model: twins of tasks with permuted labels, adapters that exist, pairs of tasks.
#   bash example_scripts/pretrained/study.sh --train_dir data/gym        plan: docs/results/protocols/pretrained_plan.md
# Variables: PARTS (tuning twins few adapters pairs), SEEDS, MODEL (models/smollm2 of get_smollm2.sh), OUTPUT_DIR, JOBS (2),
# TWIN_STEPS, FEW_STEPS, POOL_STEPS, COPY_STEPS, PAIR_STEPS, PAIR_SEEDS. The same call continues. Further flags: `routing-moe train`.
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"
ARGS=("$@") && take_data && take --model MODEL "${MODEL:-models/smollm2}"
take_runs models/pretrained "61 62 63 64 65" && TUNE_SEED=60 JOBS=${JOBS:-2} TOOLS=example_scripts/pretrained
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
PARTS=${PARTS:-tuning twins few adapters pairs}
POOL_STEPS=${POOL_STEPS:-400} TWIN_STEPS=${TWIN_STEPS:-200} FEW_STEPS=${FEW_STEPS:-100} COPY_STEPS=${COPY_STEPS:-40}
PAIR_STEPS=${PAIR_STEPS:-1200} PAIR_SEEDS=${PAIR_SEEDS:-61 62}
part() { [[ " $PARTS " = *" $1 "* ]]; }
GYMS=$OUT/gyms
[ -d "$GYMS" ] || { rm -rf "$GYMS.part" && "$PYTHON" $TOOLS/make_gyms.py "$DATA_DIR" "$GYMS"; }

LORA="--lora_rank 8 --lora_alpha 16" # the scale of all arms is 2
TEXTS=(--prompt_format chat --system "Give the label or answer." --max_input_length 96 --max_output_length 16)
SCORED=(--mixed_precision bf16 --num_beams 1 --scoring rank --measures answer_loss rank_accuracy)
train() { # STEPS BATCH RATE SEED FOLDER FLAGS ...
    run "$5/$SCORES" routing-moe train --resume --model "$MODEL" --expert_kind lora $LORA "${TEXTS[@]}" "${SCORED[@]}" \
        --base_dtype bfloat16 --micro_batch_overhead 200 --select_by answer_loss ${KEEP---no_text_vectors} \
        --train_batch_size "$2" --gradient_accumulation_steps 1 --total_steps "$1" --eval_period "$1" \
        --learning_rate "$3" --seed "$4" --output_dir "$5" "${@:6}" "${ARGS[@]}"
}
declare -A FLAGS=(
    [one_16]="--num_experts 1 --lora_rank 16 --lora_alpha 32"
    [one_128]="--num_experts 1 --lora_rank 128 --lora_alpha 256"
    [true_groups]="--task_routes GYM/true.json"
    [random_groups]="--task_routes GYM/random-SEED.json"
    [per_task]="--task_routes tasks"
    [cross_loss]="--task_routes $OUT/twins/per_task/seedSEED/transfer/groups.json"
    [random_found]="--task_routes random:$OUT/twins/per_task/seedSEED/transfer/groups.json"
)
arm() { # NAME GYM STEPS RATE SEED FOLDER
    local flags=${FLAGS[$1]//GYM/$2}
    train "$3" 16 "$4" "$5" "$6" --train_dir "$2" ${flags//SEED/$5}
}

# ---- rates, by four other pairs of twins
RATES="3e-4 1e-3 3e-3"
declare -A FURTHER=([one_128]=1e-4 [true_groups]=1e-2 [random_groups]=1e-2) # the best of those was at an end
if part tuning; then
    for name in ${ARMS:-per_task one_16 true_groups random_groups one_128}; do for rate in $RATES ${FURTHER[$name]:-}; do
        arm $name "$GYMS/twins_tuning" 100 "$rate" $TUNE_SEED "$OUT/tuning/$name/$rate"
    done; done | in_parallel
fi
declare -A RATE=()
while read -r name rate; do RATE[$name]=$rate; done < <("$PYTHON" $TOOLS/study.py rates "$OUT/tuning" $RATES)
for name in cross_loss random_found; do RATE[$name]=${RATE[random_groups]:-}; done # tasks need not fit

# ---- twins
tuned() { # NAME ...
    for name in "$@"; do
        [ -n "${RATE[$name]:-}" ] || fail "$name: not all rates were tried; run PARTS=tuning to its end"
    done
}
arms_of() { # GYM STEPS SEED NAME ...
    for name in "${@:4}"; do
        arm "$name" "$GYMS/$1" "$2" "${RATE[$name]}" "$3" "$OUT/$1/$name/seed$3"
    done
}
if part twins; then
    tuned per_task true_groups one_16 random_groups one_128
    # A queue: what a run reads is of runs that are well before it. A seed is complete before the next one, so that
    # fewer seeds, if time ends, are not chosen by results.
    read_unseen() { # NAME: unseen tasks as the train task, name and route, of lowest loss on 16 rows
        local own=$OUT/twins/$1/seed$seed
        run "$own/best/by_loss-${UNSEEN#*/}" "$PYTHON" $TOOLS/study.py unseen "$own" "$GYMS/twins"
    }
    for seed in $SEEDS; do
        own=$OUT/twins/per_task/seed$seed
        arms_of twins "$TWIN_STEPS" "$seed" per_task true_groups one_16
        run "$own/transfer/groups.json" routing-moe transfer "$own"
        arms_of twins "$TWIN_STEPS" "$seed" random_groups && read_unseen true_groups && read_unseen one_16
        arms_of twins "$TWIN_STEPS" "$seed" cross_loss random_found one_128 && read_unseen cross_loss
    done | in_parallel
fi
if part few; then
    tuned per_task true_groups one_16 random_groups
    { # first those of the contrast
        for seed in $SEEDS; do arms_of few "$FEW_STEPS" "$seed" per_task true_groups; done
        for seed in $SEEDS; do arms_of few "$FEW_STEPS" "$seed" random_groups one_16; done
    } | in_parallel
fi

# ---- adapters that exist, and 16 rows of an unseen task
copies() { # GYM GRID: of each copy, what each method makes of its rows
    for table in "$GYMS/$1"/tables/*-{1,2,3}.jsonl; do # of all tasks the first first
        [ -e "$table" ] || continue
        name=$(basename "$table" .jsonl)
        run "$OUT/copies/$name/losses.csv" "$PYTHON" $TOOLS/study.py copy "$OUT" "$name" "$MODEL" "$COPY_STEPS" "$2"
    done
}
if part adapters; then
    pool=$OUT/pool adapters=$OUT/adapters
    tuned per_task
    KEEP="" train "$POOL_STEPS" 16 "${RATE[per_task]}" $TUNE_SEED "$pool" --train_dir "$GYMS/adapters" --no_prefix \
        --task_routes tasks | in_parallel
    # not by `run`, whose log would be in the folder that must be new
    [ -d "$adapters" ] || routing-moe export --checkpoint "$pool" --adapters --output_dir "$adapters"
    run "$OUT/ties/best/config.json" routing-moe average --runs "$pool" --merger ties --density 0.2 --trim tensor \
        --output_dir "$OUT/ties/best" | in_parallel
    rates="1e-4, 3e-4, 1e-3, 3e-3"
    copies unseen_tuning "{\"mixed\": [0.1, 0.3, 1, 3], \"new\": [$rates], \"tuned\": [$rates]}" | in_parallel
    grid=$("$PYTHON" $TOOLS/study.py grid "$OUT") && copies unseen "$grid" | in_parallel || FAILED=1
fi

# ---- pairs: each of 8 tasks alone, and in a joint expert with each other
if part pairs; then
    tuned per_task one_16
    run "$OUT/pool/transfer/groups.json" routing-moe transfer "$OUT/pool" | in_parallel
    train 100 16 "${RATE[one_16]}" $TUNE_SEED "$OUT/joint" --train_dir "$GYMS/adapters" --no_prefix ${FLAGS[one_16]} | in_parallel
    vectors() { # METHOD MODEL FLAGS ...
        run "$OUT/vectors/$1/meta.json" routing-moe vectors "$1" --train_dir "$GYMS/adapters" --tasks train --model "$2" \
            --max_input_length 96 --quiet "${@:3}" --output_dir "$OUT/vectors/$1"
    }
    { vectors text "$MODEL" && vectors gradient "$OUT/joint" --weights updates; } | in_parallel
    for seed in $PAIR_SEEDS; do
        train "$PAIR_STEPS" 16 "${RATE[per_task]}" "$seed" "$OUT/pairs/seed$seed" --train_dir "$GYMS/pairs" --no_prefix \
            --task_routes "$GYMS/pairs/experts.json"
    done | in_parallel
fi
exit "$FAILED"
