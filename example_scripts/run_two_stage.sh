#!/usr/bin/env bash
# The whole method: stage 1 learns routes, a merge makes the experts plain BART again, stage 2 trains them anew
# under these routes. As it is: on the embedded gym; on yours by the environment variables of recipe.sh:
#   MODEL=facebook/bart-base DATA_DIR=gym SPLIT=split.json OUTPUT_DIR=models/moe bash example_scripts/run_two_stage.sh
#   OUTPUT_DIR    run folder of stage 2, whose scores count (models/two_stage)
#   STAGE1        run whose routes are kept, ours or of the published code; if not given, stage 1 is trained in
#                 OUTPUT_DIR/stage1
#   STAGE1_FLAGS  further flags of `python -m routing_moe.cli.train` for stage 1 ("--num_experts 4")
# and those of build_a_checkpoint2.sh and run_merged_fisher128freeze_1e-5.sh. Flags after the script's name go
# to stage 2. Run it again to continue where it was interrupted; what is finished is not done again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export OUTPUT_DIR=${OUTPUT_DIR:-models/two_stage}
scores=best/eval-test-performance.csv # the last file that a run writes of its train tasks

if [ -f "$OUTPUT_DIR/$scores" ]; then
    echo "$OUTPUT_DIR is finished: scores in $OUTPUT_DIR/$scores"
    exit
fi
# A run that the user names is never trained into: it may be of the published code.
if [ -z "${STAGE1:-}" ] && [ ! -f "$OUTPUT_DIR/stage1/$scores" ]; then
    # shellcheck disable=SC2086 # several flags
    OUTPUT_DIR=$OUTPUT_DIR/stage1 bash example_scripts/train_routing_bart.sh --resume ${STAGE1_FLAGS:-}
fi
bash example_scripts/build_a_checkpoint2.sh
bash example_scripts/run_merged_fisher128freeze_1e-5.sh --resume "$@"
