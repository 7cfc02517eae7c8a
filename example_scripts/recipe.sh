# Sourced by the training scripts: model, data and hyperparameters. Set in the environment, or in a script:
#   MODEL         plain BART, a hub name or a folder. Default: facebook/bart-base with the published hyperparameters if
#                 DATA_DIR, SPLIT or TASKVECS is given; otherwise the embedded tiny BART, task/skill_gym/tiny_bart, with
#                 its own. They go with the model: name the tiny BART to try your own data with it
#   DATA_DIR      gym folder (the embedded skill gym)
#   SPLIT         task split JSON (split.json in DATA_DIR)
#   TASKVECS      folder of task vectors (random vectors)
#   OUTPUT_DIR    run folder
#   MIXED_PRECISION  no, bf16 or fp16 (bf16 on a GPU that supports it)
# and LEARNING_RATE, ROUTER_LR, TASK_MODEL_LR, TOTAL_STEPS, EVAL_PERIOD to change the hyperparameters.
#   EMBEDDED_GYM  "conflict": an untrained BART of width 16 on the embedded conflict gym, and hyperparameters for such
#                 gyms, also with another MODEL or DATA_DIR (skill)
# A flag of the training wins over its variable.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# recipe [CHECKPOINT]: sets those variables above that are not set. CHECKPOINT: as for choose_model.
recipe() {
    choose_model "${1:-}"
    DATA_DIR=${DATA_DIR:-$embedded_gym}
    case $embedded in
        skill) LEARNING_RATE=${LEARNING_RATE:-1e-3} ;;
        conflict)
            LEARNING_RATE=${LEARNING_RATE:-3e-3}
            batches=(--train_batch_size 128 --gradient_accumulation_steps 1 --max_grad_norm 128)
            ;;
    esac
    if [ -n "$embedded" ]; then
        ROUTER_LR=${ROUTER_LR:-1e-2} TOTAL_STEPS=${TOTAL_STEPS:-1000} EVAL_PERIOD=${EVAL_PERIOD:-500}
        annealing=(--anneal_rate 0.003 --minimum_tau 0.3)
    fi
    LEARNING_RATE=${LEARNING_RATE:-1e-5} ROUTER_LR=${ROUTER_LR:-1e-3} TASK_MODEL_LR=${TASK_MODEL_LR:-1e-2}
    TOTAL_STEPS=${TOTAL_STEPS:-30000} EVAL_PERIOD=${EVAL_PERIOD:-750}
    whole_numbers TOTAL_STEPS EVAL_PERIOD
}

# recipe_of_stage2: after `recipe`, sets steps and rate to those of the second stage.
recipe_of_stage2() {
    local name
    for name in STAGE2_STEPS STAGE2_EVAL_PERIOD; do
        if [ -n "${!name:-}" ]; then whole_numbers "$name"; fi
    done
    if [ -n "$embedded" ]; then
        TOTAL_STEPS=${STAGE2_STEPS:-$TOTAL_STEPS}
    else
        TOTAL_STEPS=${STAGE2_STEPS:-$((2 * TOTAL_STEPS))}
        EVAL_PERIOD=$((TOTAL_STEPS < 20 ? 1 : TOTAL_STEPS / 20))
    fi
    LEARNING_RATE=${STAGE2_LEARNING_RATE:-$LEARNING_RATE} EVAL_PERIOD=${STAGE2_EVAL_PERIOD:-$EVAL_PERIOD}
}

# variables_of FLAGS: sets the variables whose flags are given.
variables_of() {
    take_flags "MODEL=--model DATA_DIR=--train_dir SPLIT=--custom_tasks_splits TASKVECS=--taskvecs
        OUTPUT_DIR=--output_dir TOTAL_STEPS=--total_steps EVAL_PERIOD=--eval_period
        LEARNING_RATE=--learning_rate ROUTER_LR=--router_lr TASK_MODEL_LR=--task_model_lr" "$@"
}

# announce_training MODEL FLAGS
announce_training() {
    local rates="learning rate $LEARNING_RATE" vectors flags=${*:2}
    if [[ " ${learned[*]-} " == *" --router_lr "* ]]; then rates+=", router $ROUTER_LR, task vectors $TASK_MODEL_LR"; fi
    vectors=$(value_in --taskvecs '' ${learned[@]+"${learned[@]}"} "${@:2}")
    announce "$1${vectors:+, task vectors $vectors}" "$TOTAL_STEPS steps, evaluation every $EVAL_PERIOD, $rates" \
        "$OUTPUT_DIR" "$(tr -s ' ' <<<"${flags/--initialize_from_vanilla/}" | sed 's/^ //')"
}

# steps_and_rate FLAGS: prints those of a training with these flags.
steps_and_rate() {
    local rate
    rate=$(value_in --learning_rate "$LEARNING_RATE" "$@")
    echo "$(value_in --total_steps "$TOTAL_STEPS" "$@") steps, learning rate $rate"
}

# announce_two_stages WHAT FLAGS: after `recipe`, with the flags of stage 2.
announce_two_stages() {
    local first="routes of ${STAGE1:-}" second
    # shellcheck disable=SC2086 # several flags
    [ -n "${STAGE1:-}" ] || first="stage 1: $(steps_and_rate ${STAGE1_FLAGS:-})"
    second=$(recipe_of_stage2 && steps_and_rate "${@:2}") || exit 2
    announce "$1" "$first; stage 2: $second" "$OUTPUT_DIR" "${*:2}"
}

starts_from_bart() { [[ " $* " == *" --initialize_from_vanilla "* ]]; }

# flags_of_routes FLAGS: sets `learned`, the flags for routes that are learned in a new model. Other routes have no
# router, no task vectors and no temperature; given ones may be clusters of vectors.
flags_of_routes() {
    learned=()
    starts_from_bart "$@" || return 0
    case " $* " in
        *" --task_routes_as start "* | *" --task_routes_as=start "*) ;;
        *" --task_routes "* | *" --task_routes="*)
            learned=(${TASKVECS:+--taskvecs "$TASKVECS"})
            return
            ;;
        *" --avg_routing "* | *" --random_routing "* | *" --task_level_random_routing "* | *" --num_experts 1 "* | \
            *" --num_experts=1 "*) return ;;
    esac
    learned=(--router_lr "$ROUTER_LR" --task_model_lr "$TASK_MODEL_LR" ${annealing[@]+"${annealing[@]}"})
    if [ -n "${TASKVECS:-}" ]; then
        learned+=(--taskvecs "$TASKVECS")
    elif [ -n "${width:-}" ]; then
        learned+=(--taskvecs_dim "$width")
    fi
}

# train FLAGS: trains in OUTPUT_DIR, then scores dev and test files with the best checkpoint. The start is MODEL with
# --initialize_from_vanilla, else a checkpoint in OUTPUT_DIR.
train() {
    local start
    variables_of "$@"
    recipe
    flags_of_routes "$@"
    if starts_from_bart "$@"; then
        announce_training "model $MODEL" "$@"
        set -- --model "$MODEL" "$@"
    else
        start=$OUTPUT_DIR/$(value_in --checkpoint_name best "$@")
        announce_training "checkpoint $start, hyperparameters of $MODEL" "$@"
    fi
    make_embedded_gym
    "$PYTHON" -m routing_moe.cli.train \
        --do_train \
        --do_predict \
        --train_dir "$DATA_DIR" \
        ${SPLIT:+--custom_tasks_splits "$SPLIT"} \
        --output_dir "$OUTPUT_DIR" \
        --learning_rate "$LEARNING_RATE" \
        --total_steps "$TOTAL_STEPS" \
        --eval_period "$EVAL_PERIOD" \
        ${lengths[@]+"${lengths[@]}"} \
        ${one_beam[@]+"${one_beam[@]}"} \
        ${batches[@]+"${batches[@]}"} \
        ${precision[@]+"${precision[@]}"} \
        ${learned[@]+"${learned[@]}"} \
        "$@"
}
