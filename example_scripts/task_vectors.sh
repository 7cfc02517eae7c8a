#!/usr/bin/env bash
# Compute task vectors, for TASKVECS of the training scripts.
#   bash example_scripts/task_vectors.sh METHOD [FLAGS]
#   METHOD  random, text, finetuned_text, fisher, gradient, or descriptions. Data of a task, including unseen tasks,
#           that its vector has seen: random and descriptions none, text unlabelled inputs, finetuned_text, fisher and
#           gradient labelled rows
#   FLAGS   further flags of `python -m task.task_emb.METHOD`
# For few-shot fine-tuning, --samples each computes one vector per sample from its own rows; --recipe published uses
# the settings of the published code. By default: the embedded gym and tiny BART, with all samples of a task
# (meta.json: labelled rows of all samples). For your own data, set in the environment:
#   MODEL         plain BART, a hub name or a folder (default: facebook/bart-base if DATA_DIR or SPLIT is given); for
#                 gradient rather a run that was trained on the tasks
#   DATA_DIR      gym folder
#   SPLIT         task split JSON (default: split.json in DATA_DIR, if it exists)
#   DESCRIPTIONS  JSON file for METHOD descriptions (default: dataloader/descriptions.json, of the 160 tasks)
#   OUTPUT_DIR    folder of the vectors (default: data/task_vectors/METHOD)
#   NUM_WORKERS   number of tasks computed at the same time (default: 1)
# Run the same command to continue after an interruption; finished vectors are kept.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

METHOD=${1:-}
if [ ! -f "task/task_emb/$METHOD.py" ] || [[ ! $METHOD =~ ^(random|text|finetuned_text|fisher|gradient|descriptions)$ ]]; then
    echo "error: unknown METHOD '$METHOD'; give random, text, finetuned_text, fisher, gradient or descriptions" >&2
    exit 2
fi
shift

choose_model
texts=(${lengths[@]+"${lengths[@]:0:2}"}) answers=(${lengths[@]+"${lengths[@]:2}"})
if [ "$embedded" = skill ]; then
    # All tasks have the same number of examples, so that vectors are comparable; the five samples of an unseen task
    # have 160 in total. The vector of an unseen task is then computed from labels of all its samples.
    examples=(--samples all --max_examples 160)
    training=(--total_steps 100)
    rate=(--learning_rate 3e-4)
fi
OUTPUT_DIR=${OUTPUT_DIR:-data/task_vectors/$METHOD}
if [ -z "${DATA_DIR:-}" ]; then
    DATA_DIR=$embedded_gym
    [ "$embedded" = conflict ] || DESCRIPTIONS=${DESCRIPTIONS:-$DATA_DIR/descriptions.json}
fi
reader=" by $MODEL"
if [[ $METHOD =~ ^(random|descriptions)$ ]]; then reader=; fi
announce "$METHOD vectors$reader" "${NUM_WORKERS:-1} task(s) at a time" "$OUTPUT_DIR" "$*"
# The sentence encoder is an optional requirement: it is installed here into the .venv that quickstart.sh creates.
if [ "$METHOD" = descriptions ] && [ "$PYTHON" = .venv/bin/python ]; then make_environment sentences; fi
make_embedded_gym

case $METHOD in
    random) set -- --train_dir "$DATA_DIR" ${width:+--taskvecs_dim "$width"} "$@" ;;
    descriptions) set -- --descriptions "${DESCRIPTIONS:-dataloader/descriptions.json}" "$@" ;;
    *) set -- --train_dir "$DATA_DIR" --model "$MODEL" ${texts[@]+"${texts[@]}"} ${examples[@]+"${examples[@]}"} "$@" ;;
esac
case $METHOD in
    finetuned_text) set -- ${answers[@]+"${answers[@]}"} ${training[@]+"${training[@]}"} ${rate[@]+"${rate[@]}"} "$@" ;;
    gradient) set -- ${answers[@]+"${answers[@]}"} "$@" ;;
    fisher) set -- ${answers[@]+"${answers[@]}"} ${training[@]+"${training[@]}"} "$@" ;;
esac
"$PYTHON" -m "task.task_emb.$METHOD" \
    ${SPLIT:+--custom_tasks_splits "$SPLIT"} \
    --num_workers "${NUM_WORKERS:-1}" \
    --output_dir "$OUTPUT_DIR" \
    "$@"
