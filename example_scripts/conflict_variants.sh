# Sourced by compare_conflict.sh, after equal_flops.sh: the gyms, the dense runs, the task vectors, and how each variant is trained.
#
# A job is PLACE/VARIANT/seed<seed>, or PLACE/VARIANT/lr<rate> when rates are tuned; PLACE is conflict<c>_<n>skills.

# Sets place, variant, run, seed, conflict, skills, gym, folder and, when a rate is tuned, rate.
parts_of() {
    place=${1%%/*} run=${1#*/}
    variant=${run%%/*} seed=${run##*/seed} rate=
    conflict=${place#conflict} skills=${place#*_}
    conflict=${conflict%%_*} skills=${skills%skills} folder=$OUTPUT_DIR/$place/$run
    if [[ $run == */lr* ]]; then
        rate=${run##*/lr} seed=$TUNE_SEED folder=$OUTPUT_DIR/tuning/$place/$run
    fi
    gym=$OUTPUT_DIR/gyms/${place}_seed$seed
}

run_module() { "$PYTHON" -m "$@"; }

# Writes the gym of a job and its untrained BARTs.
make_gym() {
    parts_of "$1"
    local side width
    if [ -f "$gym/finished" ]; then return; fi
    side=$(awk "BEGIN { print sqrt($skills) }")
    # shellcheck disable=SC2086 # several flags
    run_module task.conflict_gym.generate --output_dir "$gym/gym" --conflict "$conflict" --encoder_parts "$side" \
        --decoder_parts "$side" --tasks $((TASKS_PER_SKILL * skills)) --seed "$seed" $GYM_FLAGS || return 1
    for width in 16 32; do
        rm -rf "$gym/width$width"
        run_module task.conflict_gym.bart --gym "$gym/gym" --width "$width" --seed "$seed" --output_dir "$gym/width$width" || return 1
    done
    # An expert for each task.
    "$PYTHON" -c 'import json, sys; print(json.dumps({t: i for i, t in enumerate(json.load(open(sys.argv[1]))["train"])}))' \
        "$gym/gym/split.json" >"$gym/task_routes.json" || return 1
    touch "$gym/finished"
}

# train_run FOLDER STEPS RATE WIDTH FLAGS: trains on the job's gym, then scores the files of the train tasks.
train_run() {
    local folder=$1 steps=$2 rate=$3 width=$4
    shift 4
    run_module routing_moe.cli.train --do_train --do_predict --resume --train_dir "$gym/gym" --output_dir "$folder" \
        --max_input_length 16 --max_output_length 8 --num_beams 1 --train_batch_size 64 \
        --max_grad_norm 100 --learning_rate "$rate" --total_steps "$steps" --seed "$seed" \
        --eval_period $(((steps + 3) / 4)) "$@" ${width:+--initialize_from_vanilla --model "$gym/width$width"}
}

# The dense run without names, whose gradients at its checkpoints from the middle on are the task vectors.
dense_run() {
    folder=$OUTPUT_DIR/dense_runs/${place}_seed$seed
    [ -f "$folder/best/eval-test-performance.csv" ] || train_run "$folder" "$DENSE_STEPS" "$DENSE_RATE" 16 \
        --num_experts 1 --hide_task_names --save_period $((DENSE_STEPS / 10))
}

# Writes the task vectors of the job's variant; sets taskvecs to their folder.
make_vectors() {
    local kind=gradient flags=() i
    case $variant in text_clusters) kind=text ;; fisher_clusters) kind=fisher ;; esac
    taskvecs=$OUTPUT_DIR/vectors/${place}_seed$seed/$kind
    [ -f "$taskvecs/meta.json" ] && return
    case $kind in
        gradient)
            flags=(--max_output_length 8 --hide_task_names --checkpoint_names)
            for i in 5 6 7 8 9 10; do flags+=("$((i * DENSE_STEPS / 10))-steps"); done
            ;;
        # Of the dense model as it is, without training on the task.
        fisher) flags=(--max_output_length 8 --weights layers --learning_rate 0 --total_steps 1) ;;
    esac
    run_module "task.task_emb.$kind" --train_dir "$gym/gym" --model "$OUTPUT_DIR/dense_runs/${place}_seed$seed" \
        --max_input_length 16 --output_dir "$taskvecs" --quiet "${flags[@]}"
}

# Prints the flags of the job's variant.
flags_of_variant() {
    local mixture="--num_experts 4 --init_eps 1e-2" given="--init_eps 1e-2 --task_routes"
    local router="--router_lr $ROUTER_LR --minimum_tau 0.3 --anneal_rate $(awk "BEGIN { print 2.3 / $TOTAL_STEPS }")"
    local random="--task_model_lr $ROUTER_LR --taskvecs_dim 16"
    case $variant in
        dense | dense_total | dense_total_flops) echo "--num_experts 1" ;;
        dense_no_names) echo "--num_experts 1 --hide_task_names" ;;
        average) echo "$mixture --avg_routing" ;;
        task_random) echo "$mixture --task_level_random_routing" ;;
        straight_through) echo "$mixture $router $random" ;;
        softmax) echo "$mixture $router $random --router_mode softmax" ;;
        balanced) echo "$mixture $router $random --router_mode softmax --load_balance 0.1" ;;
        gradient_inputs) echo "$mixture $router --router_mode softmax --taskvecs $taskvecs --freeze_task_model" ;;
        clusters) echo "$given clusters:auto --taskvecs $taskvecs" ;;
        composed) echo "$given clusters:auto --taskvecs $taskvecs --num_experts 4" ;;
        text_clusters | fisher_clusters) echo "$given clusters:$skills --taskvecs $taskvecs" ;;
        oracle) echo "$given $gym/gym/oracle_routes.json" ;;
        task_experts) echo "$given $gym/task_routes.json" ;;
    esac
}

# Stage 1 is softmax routing for half of the steps, stage 2 the other half with frozen routes from average to learned.
train_two_stages() {
    local rate=$1 half=$((TOTAL_STEPS / 2)) flags
    flags=$(variant=softmax && flags_of_variant)
    # shellcheck disable=SC2086 # several flags
    [ -f "$folder/stage1/best/eval-test-performance.csv" ] ||
        train_run "$folder/stage1" "$half" "$rate" 16 $flags || return 1
    run_module routing_moe.cli.merge --routes_from "$folder/stage1" --model "$gym/width16" --init_eps 1e-2 \
        --output_dir "$folder" --keep_existing || return 1
    train_run "$folder" $((TOTAL_STEPS - half)) "$rate" "" --checkpoint_name init --router_mode softmax --router_lr 0 \
        --task_model_lr 0 --initial_tau 300 --minimum_tau 1 --anneal_rate "$(awk "BEGIN { print 6 / $half }")"
}

# steps_with_flops_of_dense RATE: prints the number of steps of a dense model of width 32 with the FLOPs of the job's
# run of dense. It is saved beside the run, whose folder has a run of that number of steps once it is started.
steps_with_flops_of_dense() {
    saved_steps "$folder.steps_of_dense" train_run "$folder" "$TOTAL_STEPS" "$1" 32 --num_experts 1 \
        --equal_flops "${folder/dense_total_flops/dense}" && return
    echo "error: the number of steps with the FLOPs of dense could not be computed" >&2
    return 1
}

# Trains a run, unless it is finished, and writes its log beside it.
train_job() {
    parts_of "$1"
    local start=$SECONDS
    if is_finished "$1"; then return; fi
    mkdir -p "${folder%/*}"
    echo "started  $1"
    trap 'exit 255' INT TERM # Ctrl-C also reaches the training process, which saves its state
    if train_variant >>"$folder.log" 2>&1; then echo "finished $1 after $((SECONDS - start)) s"; else echo "failed   $1"; fi
}

is_finished() {
    parts_of "$1"
    [ "$variant" != dense_run ] || folder=$OUTPUT_DIR/dense_runs/${place}_seed$seed
    [ -f "$folder/finished" ]
}

# The variant whose rate a variant has: the same kind of model and routes.
tuned_as() {
    case $1 in
        dense_total_flops) echo dense_total ;;
        dense_no_names) echo dense ;;
        two_stage | gradient_inputs | balanced) echo softmax ;;
        task_experts | text_clusters | fisher_clusters) echo clusters ;;
        *) echo "$1" ;;
    esac
}

# Prints the rate of a variant: the one of RATES whose tuning run has the best dev score, of equal scores the lowest.
# Runs that are not finished do not count: at a high rate, training may diverge.
rate_of() {
    local rate tuning
    if [[ $RATES != *" "* ]]; then
        echo "$RATES"
        return
    fi
    for rate in $RATES; do
        tuning=$OUTPUT_DIR/tuning/conflict1_16skills/$(tuned_as "$1")/lr$rate
        if [ -f "$tuning/finished" ]; then
            echo "$(tail -n +2 "$tuning/losses.csv" | cut -d, -f5 | sort -gr | head -n 1) $rate"
        fi
    done | sort -k 1,1gr -k 2,2g | head -n 1 | cut -d" " -f2 | grep . ||
        { echo "error: no tuning run of $(tuned_as "$1") is finished" >&2 && return 1; }
}

train_variant() {
    local steps=$TOTAL_STEPS width=16
    if [ "$variant" = dense_run ]; then
        dense_run && variant=clusters && make_vectors && touch "$folder/finished"
        return
    fi
    rate=${rate:-$(rate_of "$variant")} || return 1
    case $variant in
        clusters | composed | gradient_inputs | text_clusters | fisher_clusters)
            make_vectors || return 1
            steps=$((TOTAL_STEPS - DENSE_STEPS))
            ;;
        dense_total) width=32 ;;
        dense_total_flops)
            width=32
            steps=$(steps_with_flops_of_dense "$rate") || return 1
            ;;
    esac
    if [ "$variant" = two_stage ]; then
        train_two_stages "$rate" || return 1
    else
        # shellcheck disable=SC2046 # several flags
        train_run "$folder" "$steps" "$rate" "$width" $(flags_of_variant) || return 1
    fi
    if [[ " $UNSEEN " == *" $variant "* && $run == */seed* ]]; then
        run_module routing_moe.cli.train --do_predict --predict_split test --output_dir "$folder" || return 1
    fi
    touch "$folder/finished"
}
export -f parts_of run_module make_gym train_run dense_run make_vectors flags_of_variant train_two_stages steps_with_flops_of_dense
export -f train_job is_finished tuned_as rate_of train_variant
