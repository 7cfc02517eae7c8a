# Sourced by the finetune_a_list_of_tasks scripts: fine-tunes on each task separately, from the same checkpoint.
#   bash example_scripts/finetune_a_list_of_tasks_moe.sh TASKS CHECKPOINT IDENTIFIER [FLAGS]
#   TASKS       names of tasks in one argument, or sections of a split: "boolq piqa", test, "my_split.json:test"
#   CHECKPOINT  initial checkpoint, relative to the top folder of the repository; None: MODEL without further training
#   IDENTIFIER  results are written to models/IDENTIFIER/singletask-<task>/, the table of all tasks to
#               models/IDENTIFIER/summary.csv (RESULTS_DIR in the environment: another folder than models/IDENTIFIER)
#   FLAGS       further flags of `python -m routing_moe.cli.finetune`
# Without arguments: the 8 unseen tasks of the embedded gym, from the embedded tiny BART or from a mixture trained on
# the embedded gym (which is trained first if necessary). For your own data, set in the environment, or in a script:
#   MODEL       plain BART, a hub name or a folder, which the grid goes with: a small one with the embedded tiny BART,
#               task/skill_gym/tiny_bart, else the published one (default: of a checkpoint with the sizes of the embedded
#               BART, that; of another one, facebook/bart-base; with None as in recipe.sh)
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
    trains_start= RESULTS_DIR=${RESULTS_DIR:-models/$IDENTIFIER}
    if [ -n "${training_script:-}" ] && [ "$CHECKPOINT" = "$default_checkpoint" ] && ! has_data &&
        { [ -z "${MODEL:-}" ] || is_tiny; } && [ ! -f "$CHECKPOINT/best/eval-test-performance.csv" ]; then
        trains_start=yes MODEL=$TINY_BART
    fi
    choose_model "${CHECKPOINT#None}"
    DATA_DIR=${DATA_DIR:-data/skill_gym}
    if is_tiny; then
        LEARNING_RATE_LIST=${LEARNING_RATE_LIST:-3e-4 1e-3} BSZ_LIST=${BSZ_LIST:-4 8}
        TOTAL_STEPS=${TOTAL_STEPS:-100} EVAL_PERIOD=${EVAL_PERIOD:-25} WARMUP_STEPS=${WARMUP_STEPS:-10}
        texts=(--max_input_length 128 --max_output_length 32 --num_beams 1)
        # With such small matrices, a second thread barely helps, and slows down training on a busy machine.
        export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    else
        LEARNING_RATE_LIST=${LEARNING_RATE_LIST:-1e-5 2e-5 5e-5} BSZ_LIST=${BSZ_LIST:-2 4 8}
        TOTAL_STEPS=${TOTAL_STEPS:-1000} EVAL_PERIOD=${EVAL_PERIOD:-100} WARMUP_STEPS=${WARMUP_STEPS:-100}
    fi
    whole_numbers TOTAL_STEPS EVAL_PERIOD
}

# finetune FLAGS: fine-tunes on every task from the checkpoint in FLAGS; continues with the other tasks if one fails.
finetune() {
    local names task folder steps status=0 start=$CHECKPOINT
    MODEL=$(value_in --model "${MODEL:-}" "$*")
    choose_grid
    if [ "$CHECKPOINT" = None ]; then start=$MODEL; else start+=" with the grid of $MODEL"; fi
    steps="$TOTAL_STEPS steps, evaluation every $EVAL_PERIOD"
    announce "fine-tuning on $TASKS from $start" \
        "$steps, learning rates $LEARNING_RATE_LIST, batch sizes $BSZ_LIST" "$RESULTS_DIR" "$*"
    make_embedded_gym
    if [ -n "$trains_start" ]; then
        env -u TOTAL_STEPS -u EVAL_PERIOD MODEL="$MODEL" OUTPUT_DIR="$CHECKPOINT" \
            bash "example_scripts/$training_script" --resume
    fi
    # shellcheck disable=SC2086 # several tasks
    names=$("$PYTHON" -m dataloader.list_tasks --gym "$DATA_DIR" --split "${SPLIT:-$DATA_DIR/split.json}" $TASKS) ||
        exit 2
    for task in $names; do
        echo "Task: $task, checkpoint: $CHECKPOINT, identifier: $IDENTIFIER"
        folder=$RESULTS_DIR/singletask-$task
        # shellcheck disable=SC2086 # lists of values
        "$PYTHON" -m routing_moe.cli.finetune \
            --task_dir "$DATA_DIR/$task" \
            --do_train \
            --do_predict \
            --model "$MODEL" \
            --learning_rate_list $LEARNING_RATE_LIST \
            --bsz_list $BSZ_LIST \
            --total_steps "$TOTAL_STEPS" \
            --eval_period "$EVAL_PERIOD" \
            --warmup_steps "$WARMUP_STEPS" \
            --max_grad_norm 0.1 \
            --weight_decay 0.01 \
            --gradient_accumulation_steps 1 \
            --num_train_epochs 1000 \
            --num_workers "${NUM_WORKERS:-1}" \
            --output_dir "$folder" \
            ${texts[@]+"${texts[@]}"} \
            ${precision[@]+"${precision[@]}"} \
            "$@" || { status=$?; echo "error: fine-tuning on $task ended with exit code $status" >&2; }
        [ "$status" -ne 130 ] || exit 130 # Ctrl-C stops all tasks
    done
    # shellcheck disable=SC2086
    "$PYTHON" example_scripts/collect_results.py --logs_dir "$RESULTS_DIR" --tasks $names \
        --output_file "$RESULTS_DIR/summary.csv" || status=$?
    exit "$status"
}
