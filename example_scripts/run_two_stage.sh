#!/usr/bin/env bash
# The whole method: stage 1 learns routes, a merge resets the experts to plain BART, and stage 2 trains them with
# these routes. By default: on the embedded gym; with other data by the variables of recipe.sh:
#   DATA_DIR=gym SPLIT=split.json OUTPUT_DIR=models/moe bash example_scripts/run_two_stage.sh
# Environment (default), in addition to that of build_a_checkpoint2.sh and run_merged_fisher128freeze_1e-5.sh:
#   OUTPUT_DIR    run folder of stage 2, with the final scores (models/two_stage)
#   STAGE1        run whose routes are kept, of this project or of the published code (stage 1 is trained in
#                 OUTPUT_DIR/stage1)
#   STAGE1_FLAGS  flags of `python -m routing_moe.cli.train` for stage 1, such as "--num_experts 4" (none)
# Further arguments are flags for stage 2. Run the same command to continue after an interruption; finished stages
# are kept.
set -aeuo pipefail

# In the environment, or written here, such as DATA_DIR=path/to/gym; `set -a` passes them on to other scripts.
MODEL=${MODEL:-}
DATA_DIR=${DATA_DIR:-}
SPLIT=${SPLIT:-}
TASKVECS=${TASKVECS:-}
OUTPUT_DIR=${OUTPUT_DIR:-models/two_stage}
STAGE1=${STAGE1:-}
STAGE1_FLAGS=${STAGE1_FLAGS:-}
set +a

source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
refuse_flags_of_all_stages "$@"
recipe "$STAGE1" # one model for both stages
scores=best/eval-test-performance.csv # the last file that a run writes for its train tasks

if [ -f "$OUTPUT_DIR/$scores" ]; then
    echo "$OUTPUT_DIR is finished: scores in $OUTPUT_DIR/$scores"
    exit
fi
announce_two_stages "model $MODEL${TASKVECS:+, task vectors $TASKVECS}" "$@"
# A run given as STAGE1 is never trained: it may be one of the published code.
if [ -z "$STAGE1" ] && [ ! -f "$OUTPUT_DIR/stage1/$scores" ]; then
    # shellcheck disable=SC2086 # several flags
    OUTPUT_DIR=$OUTPUT_DIR/stage1 bash example_scripts/train_routing_bart.sh --resume $STAGE1_FLAGS
fi
bash example_scripts/build_a_checkpoint2.sh
bash example_scripts/run_merged_fisher128freeze_1e-5.sh --resume "$@"
