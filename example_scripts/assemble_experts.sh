#!/usr/bin/env bash
# One mixture of BARTs that were trained apart: fine-tunes one on each of the tasks without the embeddings, assembles
# them, and scores the mixture, which answers as each alone.
#   bash example_scripts/assemble_experts.sh "boolq piqa" library --train_dir data/gym
#   bash example_scripts/assemble_experts.sh --small "t000 t001" library
# Writes models/library: the grids of fine-tuning, assembled/ and its scores/. Further flags: `routing-moe finetune`.
# Variables: DATA_DIR, SPLIT, OUTPUT_DIR (--train_dir, --custom_tasks_splits, --output_dir).
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
[ $# -ge 2 ] || fail "give TASKS, in one word, and a NAME; the head of this script has examples"
ARGS=("${@:3}") && take_data
take --output_dir OUT "${OUTPUT_DIR:-models/$2}"
take --model BART "${SMALL_MODEL[1]:-facebook/bart-base}"

OUTPUT_DIR=$OUT bash example_scripts/finetune_a_list_of_tasks.sh $SMALL $DRY_RUN "$1" None "$2" "${DATA[@]}" \
    --model "$BART" --samples first --freeze_embeds --save_best "${ARGS[@]}"

experts=() names=""
for task in $(routing-moe list-tasks --split "${SPLIT:-$DATA_DIR/split.json}" --gym "$DATA_DIR" $1); do
    experts+=("$task=$(compgen -G "$OUT/singletask-$task/models/*_best" || echo "$OUT/singletask-$task/models/BEST")")
    names+="${names:+, }\"$task\""
done
routing-moe assemble --keep_existing --experts "${experts[@]}" --base "$BART" --output_dir "$OUT/assembled"

[ -n "$DRY_RUN" ] || echo "{\"train\": [$names], \"dev\": [], \"test\": []}" >"$OUT/split.json"
routing-moe train --do_predict --checkpoint "$OUT/assembled" --train_dir "$DATA_DIR" \
    --custom_tasks_splits "$OUT/split.json" --output_dir "$OUT/scores"
