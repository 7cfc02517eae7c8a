#!/usr/bin/env bash
# Both stages from Fisher vectors: computes them, reduces them to principal components, keeps them frozen in stage 1.
#   bash example_scripts/run_fisher_two_stage.sh --train_dir data/gym --output_dir models/fisher_two_stage
# They have read labelled rows, also of unseen tasks, whose scores are then not zero-shot.
# Writes OUTPUT_DIR/fisher, OUTPUT_DIR/fisher64 and what run_two_stage.sh writes, whose flags these are.
#   --vector_flags "..."   flags of `routing-moe vectors fisher`, such as "--samples all"; --dim N   (64, small 16)
# Variables: DATA_DIR, SPLIT, OUTPUT_DIR, PROCESSES.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ARGS=("$@") && take_data
take --output_dir OUT "${OUTPUT_DIR:-models/fisher_two_stage}"
[[ $OUT != *[[:space:]]* ]] || fail "--output_dir '$OUT' has a space, which --stage1_flags cannot have"
take --model BART "${SMALL_MODEL[1]:-facebook/bart-base}"
take --dim DIM "$(or_small 64 16)"
take --vector_flags VECTOR_FLAGS ""
take --stage1_flags STAGE1_FLAGS ""

routing-moe vectors fisher --recipe published "${DATA[@]}" "${SKIP[@]}" --model "$BART" --output_dir "$OUT/fisher" \
    ${SMALL:+--max_input_length 16 --max_output_length 8 --total_steps 100} $VECTOR_FLAGS

routing-moe vectors reduce --taskvecs "$OUT/fisher" --transform log --dim "$DIM" \
    --custom_tasks_splits "${SPLIT:-$DATA_DIR/split.json}" --output_dir "$OUT/fisher$DIM"

TASKVECS='' bash example_scripts/run_two_stage.sh $SMALL $DRY_RUN "${DATA[@]}" --model "$BART" --output_dir "$OUT" \
    "${ARGS[@]}" --stage1_flags "--taskvecs $OUT/fisher$DIM --freeze_task_model $STAGE1_FLAGS"
