#!/usr/bin/env bash
# First steps, 3 minutes on 2 cores after installation: creates .venv, writes a gym of small tasks, trains a mixture
# with learned routes and one BART of the same active size side by side. Variables: OUTPUT_DIR, STEPS (of each training).
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
[ $# = 0 ] || fail "the quickstart has no flags, but the variables OUTPUT_DIR and STEPS"
[ -n "$DRY_RUN" ] || make_environment
source example_scripts/setup.sh --small $DRY_RUN
OUT=${OUTPUT_DIR:-models/quickstart} STEPS=${STEPS:-400} JOBS=2

echo "Training a mixture (3 experts in each layer) and one BART, $STEPS steps each, on 24 tasks ..."
for name in mixture one_bart; do
    [ $name = mixture ] && script=train_routing_bart.sh || script=train_multitask_bart.sh
    run "$OUT/$name/$SCORES" bash example_scripts/$script --small --total_steps "$STEPS" --eval_period $((STEPS / 2)) \
        --output_dir "$OUT/$name"
done | in_parallel
[ "$FAILED" = 0 ] || exit "$FAILED"

routing-moe compare "$OUT/one_bart" "$OUT/mixture" --columns test unseen --output_dir "$OUT"
cat <<EOT
Here one BART is about as good: the tasks can be told from their text. Routes matter where tasks contradict each other.

The mixture answers three new inputs of the task swap-travel-command:
EOT
routing-moe answer --checkpoint "$OUT/mixture" --task swap-travel-command --inputs - <<EOT
swap the ends : ada boat ship truck
swap the ends : omar plane bike train
swap the ends : zoe car plane tram bike
EOT

run "$OUT/report.html" routing-moe report "$OUT/mixture" --output_file "$OUT/report.html" | in_parallel
[ -n "$DRY_RUN" ] || cp "$(compgen -G "$OUT/mixture/*-steps/route.png" | sort -V | tail -n 1)" "$OUT/routes.png"
cat <<EOT

The routes of the tasks:       $OUT/routes.png
Scores, routes and experts:    $OUT/report.html
Next: source .venv/bin/activate; routing-moe --help                              all commands
      bash example_scripts/compare_conflict.sh --small                           where routes matter, 5 minutes
      bash example_scripts/finetune_a_list_of_tasks_moe.sh --small test $OUT/mixture adapted      8 unseen tasks
EOT
