#!/usr/bin/env bash
# Do tasks with similar vectors have the same label? Tables and heat maps of several folders of task vectors.
#   bash example_scripts/inspect_task_vectors.sh
#   TASKVECS_DIRS="models/moe/best vectors/text" bash example_scripts/inspect_task_vectors.sh --names trained text
# Environment (default):
#   TASKVECS_DIRS  folders with id2task.json and task_vecs.npy (all folders in data/task_vectors)
#   DATA_DIR       gym folder with ontology.json and split.json (the embedded gym, with its skills as labels)
#   SPLIT          task split JSON with the sections in --tasks (split.json of the gym)
#   OUTPUT_DIR     folder of tables and pictures (data/task_vectors_inspected)
# Further arguments are flags of `python -m task.task_emb.inspect`, such as --tasks train or --neighbours 1.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

OUTPUT_DIR=${OUTPUT_DIR:-data/task_vectors_inspected}
if [ -z "${TASKVECS_DIRS:-}" ]; then
    TASKVECS_DIRS=
    for file in data/task_vectors/*/task_vecs.npy; do
        if [ -f "$file" ]; then TASKVECS_DIRS+=" $(dirname "$file")"; fi
    done
    if [ -z "$TASKVECS_DIRS" ]; then
        echo "error: no folder in data/task_vectors has a task_vecs.npy; set TASKVECS_DIRS to folders of vectors" >&2
        exit 2
    fi
fi
if [ -z "${DATA_DIR:-}" ]; then
    DATA_DIR=data/skill_gym
    labels=(--labels "$DATA_DIR/skills.csv")
fi
vectors="task vectors $(xargs <<<"$TASKVECS_DIRS"); gym $DATA_DIR, split ${SPLIT:-$DATA_DIR/split.json}"
echo "$vectors; output in $OUTPUT_DIR${*:+; flags: $*}"
[ -z "${labels[*]-}" ] || make_skill_gym

# shellcheck disable=SC2086 # several folders
"$PYTHON" -m task.task_emb.inspect \
    --taskvecs $TASKVECS_DIRS \
    --train_dir "$DATA_DIR" \
    ${SPLIT:+--custom_tasks_splits "$SPLIT"} \
    ${labels[@]+"${labels[@]}"} \
    --output_dir "$OUTPUT_DIR" \
    "$@"
