#!/usr/bin/env bash
# Which task vectors know what kind a task is: tables and heat maps of folders of task vectors, side by side.
#   bash example_scripts/inspect_task_vectors.sh
#   TASKVECS_DIRS="models/moe/best vectors/text" bash example_scripts/inspect_task_vectors.sh --names trained text
# Environment:
#   TASKVECS_DIRS  folders with id2task.json and task_vecs.npy (all that are in data/task_vectors)
#   DATA_DIR       gym folder, of its ontology.json and split.json (the embedded gym, with its skills as labels)
#   SPLIT          task split JSON of the sections in --tasks (the gym's split.json)
#   OUTPUT_DIR     gets tables and pictures (data/task_vectors_inspected)
# Further flags of `python -m task.task_emb.inspect` are passed on, such as --tasks train or --neighbours 1.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

OUTPUT_DIR=${OUTPUT_DIR:-data/task_vectors_inspected}
if [ -z "${TASKVECS_DIRS:-}" ]; then
    TASKVECS_DIRS=
    for file in data/task_vectors/*/task_vecs.npy; do
        if [ -f "$file" ]; then TASKVECS_DIRS+=" $(dirname "$file")"; fi
    done
    if [ -z "$TASKVECS_DIRS" ]; then
        echo "error: no folder in data/task_vectors has a task_vecs.npy; name folders by TASKVECS_DIRS" >&2
        exit 2
    fi
fi
if [ -z "${DATA_DIR:-}" ]; then
    DATA_DIR=data/skill_gym
    make_skill_gym
    labels=(--labels "$DATA_DIR/skills.csv")
fi

# shellcheck disable=SC2086 # several folders
"$PYTHON" -m task.task_emb.inspect \
    --taskvecs $TASKVECS_DIRS \
    --train_dir "$DATA_DIR" \
    ${SPLIT:+--custom_tasks_splits "$SPLIT"} \
    ${labels[@]+"${labels[@]}"} \
    --output_dir "$OUTPUT_DIR" \
    "$@"
