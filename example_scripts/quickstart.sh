#!/usr/bin/env bash
# First steps: creates .venv, writes the conflict gym, trains three models on it, two at a time, and prints a table:
#   gradient_routing  a mixture whose routes are found from gradients, by run_gradient_routing.sh
#   dense             one BART of the mixture's active size
#   oracle            a mixture with the true routes
#   bash example_scripts/quickstart.sh
# An interrupted call is continued in OUTPUT_DIR (models/quickstart). DENSE_STEPS (1000) and TOTAL_STEPS (600) are those
# of run_gradient_routing.sh; the other models train for as many steps as both together.
set -aeuo pipefail

# In the environment, or written here, such as TOTAL_STEPS=300; `set -a` passes them on to other scripts.
set +a

source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
source example_scripts/jobs.sh

unset MODEL DATA_DIR SPLIT TASKVECS
export OUTPUT_DIR=${OUTPUT_DIR:-models/quickstart} EMBEDDED_GYM=conflict EVAL_PERIOD=${EVAL_PERIOD:-200}
export DENSE_STEPS=${DENSE_STEPS:-1000} TOTAL_STEPS=${TOTAL_STEPS:-600}
whole_numbers DENSE_STEPS
unset UPCYCLE # its mixture does not start from the dense run
export PYTHON JOBS=2 unseen=best/eval-test_tasks-test-performance.csv
recipe
steps="$((DENSE_STEPS + TOTAL_STEPS)) steps of each of 3 models, two at a time, evaluation every $EVAL_PERIOD"
announce "model $MODEL" "$steps, learning rate $LEARNING_RATE" "$OUTPUT_DIR"
make_environment
make_embedded_gym

train_baseline() {
    TOTAL_STEPS=$((DENSE_STEPS + TOTAL_STEPS)) bash example_scripts/"$@" --resume &&
        "$PYTHON" -m routing_moe.cli.train --do_predict --predict_split test --output_dir "$OUTPUT_DIR"
}

# train_one VARIANT: trains a model in $OUTPUT_DIR/VARIANT/seed42, unless it is finished.
train_one() {
    local log=$OUTPUT_DIR/$1.log start=$SECONDS
    export OUTPUT_DIR=$OUTPUT_DIR/$1/seed42
    if [ -f "$OUTPUT_DIR/$unseen" ]; then return; fi
    mkdir -p "$OUTPUT_DIR"
    echo "training $1 in $OUTPUT_DIR, log in $log"
    case $1 in
        gradient_routing) bash example_scripts/run_gradient_routing.sh ;;
        dense) train_baseline train_multitask_bart.sh ;;
        oracle) train_baseline train_routing_bart.sh --task_routes data/conflict_gym/oracle_routes.json ;;
    esac >>"$log" 2>&1 || { echo "error: $1 failed; the end of its log:" && end_of_log "$log" && return 1; } >&2
    echo "trained  $1 in $((SECONDS - start)) s"
}
export -f train_one train_baseline end_of_log

trap stop_all INT TERM HUP
run_jobs train_one -- gradient_routing dense oracle
trap - INT TERM HUP

run=$OUTPUT_DIR/gradient_routing/seed42
echo
"$PYTHON" -m routing_moe.cli.overview "$OUTPUT_DIR" --recovery skill --order gradient_routing dense oracle
cat <<EOF
Routes that were found (rows: tasks in the order of their true skills, columns: experts of each layer):
    $(ls -d "$run"/*-steps | sort -V | tail -n 1)/route.png
Losses and dev scores during training: $run/losses.csv, $run/curves.csv
Predictions, one file per task: $run/best/predictions/

Next steps:
    source .venv/bin/activate                                  once in each shell
    python -m routing_moe.cli.train --help                     all flags
    bash example_scripts/understand.sh $run
                                                               analyse the experts (a few minutes)
    bash example_scripts/train_routing_bart.sh                 learn routes, on tasks in words (4 minutes)
    bash example_scripts/finetune_a_list_of_tasks_moe.sh       fine-tune that mixture on 8 unseen tasks (10 minutes)
    DATA_DIR=your_gym SPLIT=your_split.json OUTPUT_DIR=models/moe \\
        bash example_scripts/run_gradient_routing.sh           find routes of your own tasks with bart-base, on a GPU
EOF
