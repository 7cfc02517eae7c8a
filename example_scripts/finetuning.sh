# Sourced by the finetune_a_list_of_tasks scripts: fine-tunes on each task separately, from the same checkpoint.
#   bash example_scripts/finetune_a_list_of_tasks_moe.sh TASKS CHECKPOINT IDENTIFIER [FLAGS]
#   TASKS       names of tasks in one argument, or sections of a split: "boolq piqa", test, "my_split.json:test"
#   CHECKPOINT  initial checkpoint, relative to the top folder of the repository; None: MODEL without further training
#   IDENTIFIER  results are written to models/IDENTIFIER/singletask-<task>/, the table of all tasks to
#               models/IDENTIFIER/summary.csv (RESULTS_DIR in the environment: another folder than models/IDENTIFIER)
#   FLAGS       further flags of `python -m routing_moe.cli.finetune`, such as --route_training merged or logits: other
#               starts along the same routes
# Without arguments: the 8 unseen tasks of the embedded gym, from the embedded tiny BART or from a mixture trained on
# the embedded gym (which is trained first if necessary). For your own data, set in the environment, or in a script:
#   MODEL       plain BART, a hub name or a folder, which the grid goes with: a small one with an embedded BART, else
#               the published one (default: that of the checkpoint, as its run.json names it; of a published run an
#               embedded BART, bart-large or bart-base, by its sizes; with None as in recipe.sh)
#   EMBEDDED_GYM  "conflict": the embedded conflict gym, and a small grid for such gyms (skill)
#   DATA_DIR    gym folder (default: the embedded gym)
#   SPLIT       task split JSON with the sections in TASKS (default: split.json in DATA_DIR)
#   NUM_WORKERS number of configurations at the same time (default: 1)
#   MIXED_PRECISION  no, bf16 or fp16 (default: bf16 on a GPU that supports it)
# and LEARNING_RATE_LIST, BSZ_LIST, TOTAL_STEPS, EVAL_PERIOD, WARMUP_STEPS to change the grid.
# Run the same command to continue after an interruption; finished configurations are kept. The task vector of each
# sample is computed only from the rows of this sample: by default it is that of the train task nearest to its
# unlabelled train inputs (column vector_seen of results.csv).
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

TASKS=${1:-${TASKS:-test}} CHECKPOINT=${2:-${CHECKPOINT:-$default_checkpoint}}
IDENTIFIER=${3:-${IDENTIFIER:-$default_identifier}}
shift $(($# < 3 ? $# : 3))

# choose_grid: sets model, gym and grid where they are not set, and trains_start if the checkpoint is the default
# mixture and has to be trained first.
choose_grid() {
    trains_start= norm=0.1 RESULTS_DIR=${RESULTS_DIR:-models/$IDENTIFIER}
    if [ -n "${training_script:-}" ] && [ "$CHECKPOINT" = "$default_checkpoint" ] && ! has_data &&
        { [ -z "${MODEL:-}" ] || is_tiny; } && [ ! -f "$CHECKPOINT/best/eval-test-performance.csv" ]; then
        trains_start=yes
        choose_model
    else
        choose_model "${CHECKPOINT#None}"
    fi
    DATA_DIR=${DATA_DIR:-$embedded_gym}
    case $embedded in
        skill)
            LEARNING_RATE_LIST=${LEARNING_RATE_LIST:-3e-4 1e-3} BSZ_LIST=${BSZ_LIST:-4 8}
            TOTAL_STEPS=${TOTAL_STEPS:-100} EVAL_PERIOD=${EVAL_PERIOD:-25} WARMUP_STEPS=${WARMUP_STEPS:-10}
            ;;
        conflict)
            LEARNING_RATE_LIST=${LEARNING_RATE_LIST:-1e-3 3e-3} BSZ_LIST=${BSZ_LIST:-16} norm=16
            TOTAL_STEPS=${TOTAL_STEPS:-60} EVAL_PERIOD=${EVAL_PERIOD:-15} WARMUP_STEPS=${WARMUP_STEPS:-10}
            ;;
        *)
            LEARNING_RATE_LIST=${LEARNING_RATE_LIST:-1e-5 2e-5 5e-5} BSZ_LIST=${BSZ_LIST:-2 4 8}
            TOTAL_STEPS=${TOTAL_STEPS:-1000} EVAL_PERIOD=${EVAL_PERIOD:-100} WARMUP_STEPS=${WARMUP_STEPS:-100}
            ;;
    esac
    whole_numbers TOTAL_STEPS EVAL_PERIOD
}

# on_task MODULE TASK FLAGS: runs a module with the flags of fine-tuning on a task.
on_task() {
    # shellcheck disable=SC2086 # lists of values
    "$PYTHON" -m "$1" \
        --task_dir "$DATA_DIR/$2" \
        --do_train \
        --do_predict \
        --model "$MODEL" \
        --learning_rate_list $LEARNING_RATE_LIST \
        --bsz_list $BSZ_LIST \
        --total_steps "$TOTAL_STEPS" \
        --eval_period "$EVAL_PERIOD" \
        --warmup_steps "$WARMUP_STEPS" \
        --max_grad_norm $norm \
        --weight_decay 0.01 \
        --gradient_accumulation_steps 1 \
        --num_train_epochs 1000 \
        --num_workers "${NUM_WORKERS:-1}" \
        --output_dir "$RESULTS_DIR/singletask-$2" \
        ${lengths[@]+"${lengths[@]}"} \
        ${one_beam[@]+"${one_beam[@]}"} \
        ${precision[@]+"${precision[@]}"} \
        "${@:3}"
}

# finetune FLAGS: fine-tunes on every task from the checkpoint in FLAGS; continues with the other tasks if one fails.
finetune() {
    local names task status=0 finished='' start
    take_flags "MODEL=--model LEARNING_RATE_LIST=--learning_rate_list BSZ_LIST=--bsz_list TOTAL_STEPS=--total_steps
        EVAL_PERIOD=--eval_period WARMUP_STEPS=--warmup_steps" "$@"
    if [ "$(value_in --route_training '' "$@")" = logits ]; then
        LEARNING_RATE_LIST=${LEARNING_RATE_LIST:-0.03 0.1 0.3} # of the command; those below are for weights
    fi
    choose_grid
    start="checkpoint $CHECKPOINT, grid of $MODEL"
    if [ "$CHECKPOINT" = None ]; then start="model $MODEL"; fi
    announce "fine-tuning on $TASKS, $start" \
        "$TOTAL_STEPS steps, evaluation every $EVAL_PERIOD, learning rates $LEARNING_RATE_LIST, batch sizes $BSZ_LIST" \
        "$RESULTS_DIR" "$*"
    make_embedded_gym
    if [ -n "$trains_start" ]; then
        env -u TOTAL_STEPS -u EVAL_PERIOD MODEL="$MODEL" OUTPUT_DIR="$CHECKPOINT" \
            bash "example_scripts/$training_script" --resume
    fi
    # shellcheck disable=SC2086 # several tasks
    names=$("$PYTHON" -m routing_moe.cli.list_tasks --gym "$DATA_DIR" --split "${SPLIT:-$DATA_DIR/split.json}" $TASKS) ||
        exit 2
    # Once for all tasks: none of them would start, and each would wait for a hub that does not answer.
    on_task example_scripts.check_start "${names%%$'\n'*}" "$@" || exit
    for task in $names; do
        echo "Task: $task, checkpoint: $CHECKPOINT, identifier: $IDENTIFIER"
        if on_task routing_moe.cli.finetune "$task" "$@"; then
            finished=yes
        else
            status=$?
            echo "error: fine-tuning on $task ended with exit code $status" >&2
        fi
        [ "$status" -ne 130 ] || exit 130 # Ctrl-C stops all tasks
    done
    if [ -n "$finished" ] || [ -d "$RESULTS_DIR" ]; then
        # shellcheck disable=SC2086
        "$PYTHON" example_scripts/collect_results.py --logs_dir "$RESULTS_DIR" --tasks $names \
            --output_file "$RESULTS_DIR/summary.csv" || status=$?
    fi
    exit "$status"
}
