#!/usr/bin/env bash
# Between the stages: the router and the task vectors of stage 1, with experts that are fresh copies of a plain BART.
#   bash example_scripts/build_a_checkpoint2.sh --routes_from models/moe --output_dir models/two_stage
# Writes OUTPUT_DIR/init, which run_merged_fisher128freeze_1e-5.sh trains. --model: the BART (default: that of stage 1).
# Further flags: `routing-moe merge`. Variable: OUTPUT_DIR.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

routing-moe merge --init_eps 1e-8 --keep_existing --output_dir "${OUTPUT_DIR:-models/two_stage}" "$@"
