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
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# recipe [CHECKPOINT]: sets those variables above that are not set. CHECKPOINT: as for choose_model.
recipe() {
    embedded=yes
    case ${EMBEDDED_GYM:-skill} in
        skill)
            choose_model "${1:-}"
            DATA_DIR=${DATA_DIR:-data/skill_gym}
            if is_tiny; then
                LEARNING_RATE=${LEARNING_RATE:-1e-3}
                lengths=(--max_input_length 128 --max_output_length 32)
                width=64
            else
                embedded=
            fi
            ;;
        conflict)
            MODEL=${MODEL:-data/conflict_gym_bart/width16} DATA_DIR=${DATA_DIR:-data/conflict_gym}
            LEARNING_RATE=${LEARNING_RATE:-3e-3}
            lengths=(--max_input_length 32 --max_output_length 8)
            batches=(--train_batch_size 128 --gradient_accumulation_steps 1 --max_grad_norm 128)
            width=16
            ;;
        *)
            echo "error: EMBEDDED_GYM is '$EMBEDDED_GYM'; it must be skill or conflict" >&2
            exit 2
            ;;
    esac
    if [ -n "$embedded" ]; then
        ROUTER_LR=${ROUTER_LR:-1e-2} TOTAL_STEPS=${TOTAL_STEPS:-1000} EVAL_PERIOD=${EVAL_PERIOD:-500}
        annealing=(--anneal_rate 0.003 --minimum_tau 0.3)
        one_beam=(--num_beams 1)
        # With such small matrices, a second thread barely helps, and slows down training on a busy machine.
        export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    fi
    LEARNING_RATE=${LEARNING_RATE:-1e-5} ROUTER_LR=${ROUTER_LR:-1e-3} TASK_MODEL_LR=${TASK_MODEL_LR:-1e-2}
    TOTAL_STEPS=${TOTAL_STEPS:-30000} EVAL_PERIOD=${EVAL_PERIOD:-750}
    whole_numbers TOTAL_STEPS EVAL_PERIOD
}

# make_gym: writes the embedded gyms and BARTs that the recipe uses.
make_gym() {
    if [ "${EMBEDDED_GYM:-skill}" = conflict ]; then make_conflict_gym; else make_embedded_gym; fi
}

# announce_training MODEL [FLAGS]
announce_training() {
    local rates="learning rate $LEARNING_RATE"
    if [[ " ${learned[*]-} " == *" --router_lr "* ]]; then rates+=", router $ROUTER_LR, task vectors $TASK_MODEL_LR"; fi
    announce "model $1${TASKVECS:+, task vectors $TASKVECS}" \
        "$TOTAL_STEPS steps, evaluation every $EVAL_PERIOD, $rates" \
        "$OUTPUT_DIR" "$(tr -s ' ' <<<"${2/--initialize_from_vanilla/}" | sed 's/^ //')"
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
    MODEL=$(value_in --model "${MODEL:-}" "$*")
    recipe
    flags_of_routes "$@"
    if starts_from_bart "$@"; then
        announce_training "$MODEL" "$*"
        set -- --model "$MODEL" "$@"
    else
        announce_training "in $OUTPUT_DIR with the settings of $MODEL" "$*"
    fi
    make_gym
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
