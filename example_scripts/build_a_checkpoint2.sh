#!/usr/bin/env bash
# The step between the two stages of training: writes a checkpoint OUTPUT_DIR/init with the router and the task
# vectors of a trained run, and with experts that are copies of plain BART. run_merged_fisher128freeze_1e-5.sh
# trains it. Without variables: with the embedded BART, after training stage 1 on the embedded gym if necessary.
# Environment (default):
#   STAGE1             run whose routes are kept, of this project or of the published code (OUTPUT_DIR/stage1)
#   STAGE1_CHECKPOINT  its checkpoint (best)
#   MODEL              plain BART that the experts are copies of, a hub name or a folder (that of STAGE1, as its run.json
#                      names it; of a published run the embedded BART, bart-large or bart-base, by its sizes)
#   INIT_EPS           standard deviation of the noise that is added to each copy (1e-8)
#   OUTPUT_DIR         run folder of stage 2 (models/two_stage)
# Further arguments are flags of `python -m routing_moe.cli.merge`. An existing checkpoint made from the same files
# is kept.
set -aeuo pipefail

# In the environment, or written here, such as STAGE1=models/my_run; `set -a` passes them on to other scripts.
MODEL=${MODEL:-}
STAGE1=${STAGE1:-}
OUTPUT_DIR=${OUTPUT_DIR:-models/two_stage}
set +a

source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
recipe "$STAGE1"
echo "routes of ${STAGE1:-$OUTPUT_DIR/stage1}, experts from $MODEL; output in $OUTPUT_DIR/init"
if [ -z "$STAGE1" ] && [ -n "$embedded" ] && [ ! -f "$OUTPUT_DIR/stage1/best/eval-test-performance.csv" ]; then
    # shellcheck disable=SC2086 # several flags, as in run_two_stage.sh
    OUTPUT_DIR=$OUTPUT_DIR/stage1 bash example_scripts/train_routing_bart.sh --resume ${STAGE1_FLAGS:-}
fi
make_embedded_gym # the conflict gym's has the model
"$PYTHON" -m routing_moe.cli.merge \
    --routes_from "${STAGE1:-$OUTPUT_DIR/stage1}" \
    ${STAGE1_CHECKPOINT:+--routes_checkpoint_name "$STAGE1_CHECKPOINT"} \
    --model "$MODEL" \
    --init_eps "${INIT_EPS:-1e-8}" \
    --output_dir "$OUTPUT_DIR" \
    --keep_existing \
    "$@"
