#!/usr/bin/env bash
# Reduce task vectors to principal components, fitted on the train tasks of the split. By default: the Fisher vectors
# of the embedded gym, which are computed if necessary, to 16 dimensions. Environment (default):
#   TASKVECS    folder of the vectors          (data/task_vectors/fisher)
#   SPLIT       task split JSON                (split.json of DATA_DIR, or of the embedded gym)
#   DIM         number of components           (64; on the embedded gym 16)
#   OUTPUT_DIR  folder of the reduced vectors  (TASKVECS followed by DIM, such as data/task_vectors/fisher16)
# Further arguments are flags of `python -m task.task_emb.reduce`; they replace the default --transform log, which
# is meant for Fisher vectors.
set -aeuo pipefail

# In the environment, or written here, such as DIM=32; `set -a` passes them on to task_vectors.sh.
set +a

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

TASKVECS=${TASKVECS:-data/task_vectors/fisher}
if [ -z "${SPLIT:-}" ] && [ -n "${DATA_DIR:-}" ]; then SPLIT=$DATA_DIR/split.json; fi
embedded=
if [ -z "${SPLIT:-}" ]; then embedded=skill SPLIT=data/skill_gym/split.json DIM=${DIM:-16}; fi
DIM=${DIM:-64}
whole_numbers DIM
OUT=${OUTPUT_DIR:-${TASKVECS%/}$DIM}
[ $# -gt 0 ] || set -- --transform log
echo "task vectors $TASKVECS, $DIM principal components of the train tasks of $SPLIT; output in $OUT; flags: $*"
if [ -n "$embedded" ]; then
    make_skill_gym
    if [ "$TASKVECS" = data/task_vectors/fisher ]; then
        env -u EMBEDDED_GYM -u DATA_DIR -u OUTPUT_DIR MODEL=$TINY_BART bash example_scripts/task_vectors.sh fisher
    fi
fi
"$PYTHON" -m task.task_emb.reduce \
    --taskvecs "$TASKVECS" \
    --custom_tasks_splits "$SPLIT" \
    --dim "$DIM" \
    --output_dir "$OUT" \
    "$@"
