#!/usr/bin/env bash
# Compute task vectors, which TASKVECS of the training scripts takes.
#   bash example_scripts/task_vectors.sh METHOD [FLAGS]
#   METHOD  random, text, finetuned_text, fisher, or descriptions. Of a task, also of unseen ones, random
#           and descriptions see nothing, text unlabelled inputs, finetuned_text and fisher labelled rows
#   FLAGS   further flags of `python -m task.task_emb.METHOD`
# For few-shot use, --samples each computes a vector of every sample from its own rows; --recipe published takes the
# settings of the published code. The defaults use the embedded gym and tiny BART and all samples of a task
# (meta.json: labelled rows of all samples). For real use set, in the environment:
#   MODEL         plain BART, a hub name or a folder      (facebook/bart-base)
#   DATA_DIR      gym folder                              SPLIT  task split JSON (its split.json, if there)
#   DESCRIPTIONS  of METHOD descriptions: JSON file       (dataloader/descriptions.json, of the 160 tasks)
#   OUTPUT_DIR    folder of the vectors                   (data/task_vectors/METHOD)
#   NUM_WORKERS   tasks computed side by side             (1)
# Run it again to continue; what is finished is not done again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

METHOD=${1:-}
if [ ! -f "task/task_emb/$METHOD.py" ] || [[ ! $METHOD =~ ^(random|text|finetuned_text|fisher|descriptions)$ ]]; then
    echo "error: '$METHOD' is no method; give random, text, finetuned_text, fisher or descriptions" >&2
    exit 2
fi
shift
# The sentence encoder is an extra: into the environment that quickstart.sh made, it is installed when needed.
if [ "$METHOD" = descriptions ] && [ "$PYTHON" = .venv/bin/python ]; then make_environment sentences; fi

if [ -z "${MODEL:-}" ]; then
    MODEL=task/skill_gym/tiny_bart
    texts=(--max_input_length 128)
    # The same number of examples of every task, so that vectors are comparable; an unseen task's five samples
    # have 160 in all. The vector of an unseen task has then read labels of all its samples.
    examples=(--samples all --max_examples 160)
    answers=(--max_output_length 32)
    training=(--total_steps 100)
    rate=(--learning_rate 3e-4)
    width=(--taskvecs_dim 64)
    # Matrices this small gain little from a second thread, and lose much when the machine is busy.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
fi
if [ -z "${DATA_DIR:-}" ]; then
    DATA_DIR=data/skill_gym
    DESCRIPTIONS=${DESCRIPTIONS:-$DATA_DIR/descriptions.json}
    make_skill_gym
fi

case $METHOD in
    random) set -- --train_dir "$DATA_DIR" ${width[@]+"${width[@]}"} "$@" ;;
    descriptions) set -- --descriptions "${DESCRIPTIONS:-dataloader/descriptions.json}" "$@" ;;
    *) set -- --train_dir "$DATA_DIR" --model "$MODEL" ${texts[@]+"${texts[@]}"} ${examples[@]+"${examples[@]}"} "$@" ;;
esac
case $METHOD in
    finetuned_text) set -- ${answers[@]+"${answers[@]}"} ${training[@]+"${training[@]}"} ${rate[@]+"${rate[@]}"} "$@" ;;
    fisher) set -- ${answers[@]+"${answers[@]}"} ${training[@]+"${training[@]}"} "$@" ;;
esac
"$PYTHON" -m "task.task_emb.$METHOD" \
    ${SPLIT:+--custom_tasks_splits "$SPLIT"} \
    --num_workers "${NUM_WORKERS:-1}" \
    --output_dir "${OUTPUT_DIR:-data/task_vectors/$METHOD}" \
    "$@"
