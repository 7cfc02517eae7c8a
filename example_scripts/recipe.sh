# Sourced by the training scripts: sets model, data and hyperparameters. By default: the embedded tiny BART on the
# embedded skill gym. For your own data, set in the environment:
#   MODEL         plain BART, a hub name or a folder, such as facebook/bart-base
#   DATA_DIR      gym folder
#   SPLIT         task split JSON (default: split.json in DATA_DIR)
#   TASKVECS      folder of task vectors (default: random vectors)
#   OUTPUT_DIR    run folder
#   MIXED_PRECISION  no, bf16 or fp16 (default: bf16 on a GPU that supports it)
# and LEARNING_RATE, ROUTER_LR, TASK_MODEL_LR, TOTAL_STEPS, EVAL_PERIOD to change the hyperparameters.
#   EMBEDDED_GYM  "conflict": an untrained BART of width 16 on the embedded conflict gym, and hyperparameters for such
#                 gyms, also with another MODEL or DATA_DIR (default: skill)
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

case ${EMBEDDED_GYM:-skill} in
    skill) ;;
    conflict)
        make_conflict_gym
        MODEL=${MODEL:-data/conflict_gym_bart/width16} DATA_DIR=${DATA_DIR:-data/conflict_gym}
        LEARNING_RATE=${LEARNING_RATE:-3e-3} ROUTER_LR=${ROUTER_LR:-1e-2} TASK_MODEL_LR=${TASK_MODEL_LR:-1e-2}
        TOTAL_STEPS=${TOTAL_STEPS:-1000} EVAL_PERIOD=${EVAL_PERIOD:-500}
        lengths=(--max_input_length 32 --max_output_length 8)
        batches=(--train_batch_size 128 --gradient_accumulation_steps 1 --max_grad_norm 128 --num_train_epochs 1000000)
        annealing=(--anneal_rate 0.003 --minimum_tau 0.3)
        [ -n "${TASKVECS:-}" ] || vector_width=(--taskvecs_dim 16)
        ;;
    *)
        echo "error: EMBEDDED_GYM is '$EMBEDDED_GYM'; it must be skill or conflict" >&2
        exit 2
        ;;
esac
if [ -z "${MODEL:-}" ]; then
    MODEL=task/skill_gym/tiny_bart
    LEARNING_RATE=${LEARNING_RATE:-1e-3} ROUTER_LR=${ROUTER_LR:-1e-2} TASK_MODEL_LR=${TASK_MODEL_LR:-1e-2}
    TOTAL_STEPS=${TOTAL_STEPS:-1000} EVAL_PERIOD=${EVAL_PERIOD:-500}
    lengths=(--max_input_length 128 --max_output_length 32)
    annealing=(--anneal_rate 0.003 --minimum_tau 0.3)
    [ -n "${TASKVECS:-}" ] || vector_width=(--taskvecs_dim 64)
else
    LEARNING_RATE=${LEARNING_RATE:-1e-5} ROUTER_LR=${ROUTER_LR:-1e-3} TASK_MODEL_LR=${TASK_MODEL_LR:-1e-2}
    TOTAL_STEPS=${TOTAL_STEPS:-30000} EVAL_PERIOD=${EVAL_PERIOD:-750}
fi
if [ -n "${lengths:-}" ]; then
    one_beam=(--num_beams 1)
    # With such small matrices, a second thread barely helps, and slows down training on a busy machine.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
fi
whole_numbers TOTAL_STEPS EVAL_PERIOD
if [ -z "${DATA_DIR:-}" ]; then
    DATA_DIR=data/skill_gym
    make_skill_gym
fi

# Flags for learned routes; other routes have no router, no task vectors and no temperature.
learned=(
    --router_lr "$ROUTER_LR" --task_model_lr "$TASK_MODEL_LR"
    ${TASKVECS:+--taskvecs "$TASKVECS"} ${vector_width[@]+"${vector_width[@]}"} ${annealing[@]+"${annealing[@]}"}
)

# train FLAGS: trains in OUTPUT_DIR, then scores dev and test files with the best checkpoint.
train() {
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
        "$@"
}
