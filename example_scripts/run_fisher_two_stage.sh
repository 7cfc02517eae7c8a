#!/usr/bin/env bash
# The method with task vectors that know the tasks: Fisher vectors, their principal components fitted on the train
# tasks, kept frozen while stage 1 learns the router and its experts; then the merge and stage 2. As it is: on the
# embedded gym; on yours by the environment variables of recipe.sh:
#   MODEL=facebook/bart-base DATA_DIR=gym SPLIT=split.json OUTPUT_DIR=models/moe \
#       bash example_scripts/run_fisher_two_stage.sh
#   VECTORS  folder of the Fisher vectors, and, with DIM behind its name, of the reduced  (OUTPUT_DIR/fisher)
#   DIM      their dimension                                        (64; on the embedded gym 16)
# A vector has read labelled rows of its task, also of unseen tasks (meta.json: "seen"), whose scores are therefore
# not zero-shot. For few-shot use compute their vectors by --samples each (task_vectors.sh) and reduce them --like this.
# All variables of run_two_stage.sh count too. Flags after the script's name go to stage 2. Run it again to continue.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export OUTPUT_DIR=${OUTPUT_DIR:-models/fisher_two_stage}
VECTORS=${VECTORS:-$OUTPUT_DIR/fisher}
if [ -n "${DATA_DIR:-}" ]; then
    split=${SPLIT:-$DATA_DIR/split.json} DIM=${DIM:-64}
else
    split=${SPLIT:-data/skill_gym/split.json} DIM=${DIM:-16}
fi
OUTPUT_DIR=$VECTORS bash example_scripts/task_vectors.sh fisher
TASKVECS=$VECTORS SPLIT=$split DIM=$DIM OUTPUT_DIR=$VECTORS$DIM bash example_scripts/reduce_task_vectors.sh
TASKVECS=$VECTORS$DIM STAGE1_FLAGS="--freeze_task_model ${STAGE1_FLAGS:-}" \
    exec bash example_scripts/run_two_stage.sh "$@"
