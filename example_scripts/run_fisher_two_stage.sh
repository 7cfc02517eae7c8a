#!/usr/bin/env bash
# The method with Fisher vectors: computes them, reduces them to principal components fitted on the train tasks, and
# keeps them frozen while stage 1 trains the router and the experts; then merge and stage 2. By default: on the
# embedded gym; with other data by the environment variables of recipe.sh:
#   DATA_DIR=gym SPLIT=split.json OUTPUT_DIR=models/moe \
#       bash example_scripts/run_fisher_two_stage.sh
# Environment (default), in addition to that of run_two_stage.sh:
#   VECTORS  folder of the Fisher vectors; the reduced ones are in VECTORS followed by DIM  (OUTPUT_DIR/fisher)
#   DIM      dimension of the reduced vectors                                (64; on the embedded gym 16)
# Vectors are computed from labelled rows, also those of unseen tasks (meta.json: "seen"), so that scores of unseen
# tasks are not zero-shot. For few-shot fine-tuning, compute them with --samples each (task_vectors.sh) and reduce them
# with --like. Further arguments are flags for stage 2. Run the same command to continue after an interruption.
set -aeuo pipefail

# In the environment, or written here, such as DATA_DIR=path/to/gym; `set -a` passes them on to other scripts.
MODEL=${MODEL:-}
DATA_DIR=${DATA_DIR:-}
SPLIT=${SPLIT:-}
OUTPUT_DIR=${OUTPUT_DIR:-models/fisher_two_stage}
set +a

source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
refuse_flags_of_all_stages "$@"
unset TASKVECS # those that are computed here are used
choose_model   # one for the vectors and both stages
VECTORS=${VECTORS:-$OUTPUT_DIR/fisher}
if [ -n "${DATA_DIR:-}" ]; then
    split=${SPLIT:-$DATA_DIR/split.json} DIM=${DIM:-64}
else
    split=${SPLIT:-$embedded_gym/split.json} DIM=${DIM:-16}
fi
(recipe && announce_two_stages "model $MODEL, its Fisher vectors in $DIM dimensions" "$@")
OUTPUT_DIR=$VECTORS bash example_scripts/task_vectors.sh fisher
TASKVECS=$VECTORS SPLIT=$split DIM=$DIM OUTPUT_DIR=$VECTORS$DIM bash example_scripts/reduce_task_vectors.sh
TASKVECS=$VECTORS$DIM STAGE1_FLAGS="--freeze_task_model ${STAGE1_FLAGS:-}" \
    exec bash example_scripts/run_two_stage.sh "$@"
