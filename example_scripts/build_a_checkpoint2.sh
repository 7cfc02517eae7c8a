#!/usr/bin/env bash
# Between the two stages of training: the router and task vectors of a trained run, and experts that are plain
# BART again, in one checkpoint, OUTPUT_DIR/init, from which run_merged_fisher128freeze_1e-5.sh starts.
# As it is: on the embedded BART, after training stage 1 on the embedded gym if that is not done. Environment:
#   STAGE1             run, ours or of the published code, whose routes are kept (OUTPUT_DIR/stage1)
#   STAGE1_CHECKPOINT  which of its checkpoints (best)
#   MODEL              plain BART that the experts are made of, a hub name or a folder
#   INIT_EPS           standard deviation of the noise on each copy (1e-8)
#   OUTPUT_DIR         run folder of stage 2 (models/two_stage)
# Further flags of `python -m routing_moe.cli.merge` may follow the script's name. A checkpoint that is there
# and made of the same files is kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

OUTPUT_DIR=${OUTPUT_DIR:-models/two_stage}
# Before recipe.sh names the embedded BART, which must not reach the script below as a MODEL of the user's.
if [ -z "${MODEL:-}" ] && [ -z "${STAGE1:-}" ] && [ ! -f "$OUTPUT_DIR/stage1/best/eval-test-performance.csv" ]; then
    # shellcheck disable=SC2086 # several flags, as in run_two_stage.sh
    OUTPUT_DIR=$OUTPUT_DIR/stage1 bash example_scripts/train_routing_bart.sh --resume ${STAGE1_FLAGS:-}
fi
source example_scripts/recipe.sh

"$PYTHON" -m routing_moe.cli.merge \
    --routes_from "${STAGE1:-$OUTPUT_DIR/stage1}" \
    ${STAGE1_CHECKPOINT:+--routes_checkpoint_name "$STAGE1_CHECKPOINT"} \
    --model "$MODEL" \
    --init_eps "${INIT_EPS:-1e-8}" \
    --output_dir "$OUTPUT_DIR" \
    --keep_existing \
    "$@"
