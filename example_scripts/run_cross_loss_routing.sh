#!/usr/bin/env bash
# Routes found by cross-loss, without a router: one BART without task names; on the rows that it does not know, a
# low-rank delta for each task; tasks whose deltas help each other share an expert. Scores train and unseen tasks.
#   bash example_scripts/run_cross_loss_routing.sh --train_dir data/gym --output_dir models/cross_loss
# Writes OUTPUT_DIR/dense, OUTPUT_DIR/deltas and the run folder of the mixture. The same command continues.
#   --total_steps N of all three trainings (30000), --dense_steps N of the BART (55%), --delta_steps N of the deltas (25%)
#   --dense RUN: a BART without task names that is trained already, for as many steps
#   --learning_rate R of the BART (1e-5), --base_lr R of what experts share (the same)
#   --delta_rate R (1e-3), --delta_rank N (4) of the deltas of tasks
#   --expert_kind layer or lora, --expert_rate R of the experts: complete layers (as --base_lr), or of low rank (1e-3;
#   --lora_rank N (--delta_rank), --lora_alpha N (its rank))
#   --contested_above NATS: a row is contested if the BART loses more on it (1); --rows N (16) of each task that are
#   compared, --advantage NATS (0): `routing-moe transfer --help`
# Further flags: `routing-moe train`, for all trainings. Variables: DATA_DIR, SPLIT, OUTPUT_DIR, PROCESSES.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ARGS=("$@") && take_data
take --output_dir OUT "${OUTPUT_DIR:-models/cross_loss}"
take --dense DENSE "$OUT/dense"
take --total_steps STEPS "$(or_small 30000 1250)"
take --dense_steps DENSE_STEPS $(((STEPS * 55 + 99) / 100))
take --delta_steps DELTA_STEPS $(((STEPS * 25 + 99) / 100))
take --learning_rate RATE "$(or_small 1e-5 6e-3)"
take --base_lr BASE_RATE "$(or_small "$RATE" 12e-3)"
take --delta_rate DELTA_RATE "$(or_small 1e-3 12e-3)"
take --delta_rank RANK 4
take --expert_kind KIND layer
take --lora_rank SIZE "$RANK"
take --lora_alpha ALPHA "$SIZE"
take --contested_above CONTESTED 1
take --rows ROWS 16
take --advantage ADVANTAGE 0
LOW_RANK=(--expert_kind lora --lora_rank "$RANK" --lora_alpha "$RANK")
case $KIND in
    layer) EXPERTS=(--expert_kind layer) EXPERT_RATE=$BASE_RATE ;;
    lora) EXPERTS=(--expert_kind lora --lora_rank "$SIZE" --lora_alpha "$ALPHA") EXPERT_RATE=$DELTA_RATE ;;
    *) fail "--expert_kind is '$KIND'; it must be layer or lora" ;;
esac
take --expert_rate EXPERT_RATE "$EXPERT_RATE"
STEPS=$((STEPS - DENSE_STEPS - DELTA_STEPS))
((STEPS > 0)) || fail "--total_steps must exceed --dense_steps $DENSE_STEPS and --delta_steps $DELTA_STEPS"
TRAIN=(train --resume "${DATA[@]}" --model facebook/bart-base --hide_task_names --train_batch_size 16
    --gradient_accumulation_steps 2 "${SMALL_TRAIN[@]}" "${ARGS[@]}")

[ "$DENSE" != "$OUT/dense" ] || routing-moe "${TRAIN[@]}" --num_experts 1 --learning_rate "$RATE" \
    --total_steps "$DENSE_STEPS" --eval_period "$DENSE_STEPS" --output_dir "$DENSE"

routing-moe "${TRAIN[@]}" --do_train --vanilla_checkpoint "$DENSE" --task_routes tasks "${LOW_RANK[@]}" \
    --learning_rate "$DELTA_RATE" --shared_base --base_lr "$BASE_RATE" --contested_above "$CONTESTED" \
    --total_steps "$DELTA_STEPS" --eval_period "$DELTA_STEPS" --no_text_vectors --output_dir "$OUT/deltas"

routing-moe transfer "$OUT/deltas" --rows "$ROWS" --advantage "$ADVANTAGE"

BASE=$OUT/deltas
[ -n "$DRY_RUN" ] || [ -d "$BASE/best" ] || BASE=$DENSE # few rows are contested, so no deltas were trained
routing-moe "${TRAIN[@]}" --vanilla_checkpoint "$BASE" --task_routes "$OUT/deltas/transfer/groups.json" \
    "${EXPERTS[@]}" --learning_rate "$EXPERT_RATE" --shared_base --base_lr "$BASE_RATE" --total_steps "$STEPS" \
    --output_dir "$OUT"

[ -n "$DRY_RUN" ] || routing-moe list-tasks --split "${SPLIT:-$DATA_DIR/split.json}" test &>/dev/null ||
    { echo "There are no test tasks to score." && exit; }
routing-moe train --do_predict --predict_split test --task_routes lowest_loss --output_dir "$OUT"
