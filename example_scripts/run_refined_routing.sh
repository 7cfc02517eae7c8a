#!/usr/bin/env bash
# Routes found by loss, without a router: one BART without task names, clusters of its gradients, and a mixture with an
# expert for each cluster, in whose first half tasks move to the expert of lowest loss. Scores train and unseen tasks.
#   bash example_scripts/run_refined_routing.sh --train_dir data/gym --output_dir models/refined
# Writes OUTPUT_DIR/dense, OUTPUT_DIR/vectors and the run folder of the mixture. The same command continues.
#   --total_steps N of the mixture (30000), --dense_steps N of the BART (a third), --mixture_rate R (--learning_rate)
# Further flags: `routing-moe train`, for both trainings. Variables: DATA_DIR, SPLIT, OUTPUT_DIR, PROCESSES.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
WORDS=("$@") && take_data
take --output_dir OUT "${OUTPUT_DIR:-models/refined_routing}"
take --total_steps STEPS "$(or_small 30000 1000)"
take --dense_steps DENSE_STEPS $(((STEPS + 2) / 3))
take --learning_rate RATE "$(or_small 1e-5 1e-3)"
take --mixture_rate MIXTURE_RATE "$RATE"
take --reassign_until MOVES $((STEPS / 2))
TENTH=$((DENSE_STEPS / 10))
((TENTH > 0 && MOVES > 5)) || fail "--dense_steps must be at least 10, and --reassign_until at least 6"
mapfile -t CHECKPOINTS < <(seq -f %.0f-steps $((5 * TENTH)) $TENTH $((10 * TENTH))) # of the second half

routing-moe train --resume "${DATA[@]}" --model facebook/bart-base --num_experts 1 --hide_task_names \
    --train_batch_size 16 --gradient_accumulation_steps 2 "${SMALL_TRAIN[@]}" "${WORDS[@]}" --learning_rate "$RATE" \
    --total_steps $((10 * TENTH)) --eval_period $((10 * TENTH)) --save_period $TENTH --output_dir "$OUT/dense"

routing-moe vectors gradient --model "$OUT/dense" "${DATA[@]}" --weights embeddings \
    --checkpoint_names "${CHECKPOINTS[@]}" --output_dir "$OUT/vectors"

routing-moe train --resume "${DATA[@]}" --model facebook/bart-base --vanilla_checkpoint "$OUT/dense" --hide_task_names \
    --task_routes clusters:auto --taskvecs "$OUT/vectors" --init_eps 1e-8 \
    --reassign_from $((MOVES / 3)) --reassign_every $((MOVES / 6)) --reassign_until "$MOVES" --reassign_splits 2 \
    --train_batch_size 16 --gradient_accumulation_steps 2 --eval_period 750 "${SMALL_TRAIN[@]}" "${WORDS[@]}" \
    --learning_rate "$MIXTURE_RATE" --total_steps "$STEPS" --output_dir "$OUT"

routing-moe train --do_predict --predict_split test --task_routes lowest_loss --output_dir "$OUT"
