#!/usr/bin/env bash
# First steps, 3 minutes on 2 cores after installation: creates .venv, writes a gym of tasks that contradict each other on
# half of the rows, trains tiny models on it, two at a time, and compares them. Steps and rates are those of the 20 gyms
# of docs/results/conflict.md, a seed of each. Variables: OUTPUT_DIR, STEPS (of each model).
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
[ $# = 0 ] || fail "the quickstart has no flags, but the variables OUTPUT_DIR and STEPS"
[ -n "$DRY_RUN" ] || make_environment
source example_scripts/setup.sh --small $DRY_RUN
OUT=${OUTPUT_DIR:-models/quickstart} STEPS=${STEPS:-1250} JOBS=2

declare -A FLAGS=( # from the longest to the shortest
    [cross_loss]="run_cross_loss_routing.sh --dense_steps $((STEPS * 14 / 25)) --delta_steps $((STEPS * 6 / 25))"
    [learned]="train_routing_bart.sh"
    [one_bart_flops]="train_multitask_bart.sh --total_steps $((STEPS * 31 / 25))"
    [one_bart]="train_multitask_bart.sh"
)
VARIANTS="cross_loss learned one_bart_flops one_bart"
echo "Training four models of 64 tasks, $STEPS steps each (one_bart_flops: the FLOPs of cross_loss) ..."
for name in $VARIANTS; do
    read -ra flags <<<"${FLAGS[$name]}"
    run "$OUT/$name/$SCORES" bash "example_scripts/${flags[0]}" --small --total_steps "$STEPS" \
        --eval_period $((STEPS / 2)) "${flags[@]:1}" --output_dir "$OUT/$name"
done | in_parallel
[ "$FAILED" = 0 ] || exit "$FAILED"
{
    run "$OUT/report.html" routing-moe report "$OUT/cross_loss" --output_file "$OUT/report.html"
    for name in learned one_bart_flops one_bart; do unseen "$OUT/$name"; done
} | in_parallel
[ "$FAILED" = 0 ] || exit "$FAILED"

cat <<EOT

One gym, one run of each (n), by models of which 15,376 parameters answer an example, not pre-trained. Beside them the
means of published gyms of other seeds (docs/results/conflict.md). 64 train tasks have 16 hidden skills; on half of the
rows, each skill has another answer. test: share of right answers on new rows; unseen: on 16 new tasks of these skills.
  one_bart        one model, which reads the name of the task. one_bart_flops: trained for the FLOPs of cross_loss; with a
                  borrowed name: of the train task that fits 16 labelled rows of the unseen task best
  learned         4 experts in each layer; the paper's router, not tuned, learns which of them a task uses
  cross_loss      tasks that lower each other's loss share experts; an unseen task finds its own by 16 labelled rows

EOT
[ -n "$DRY_RUN" ] || "$PYTHON" example_scripts/quickstart_results.py "$OUT" "$DATA_DIR"
[ -n "$DRY_RUN" ] || cp "$(compgen -G "$OUT/cross_loss/*-steps/route.png" | sort -V | tail -n 1)" "$OUT/routes.png"
cat <<EOT

The routes of cross_loss, a row for each task:   $OUT/routes.png
Scores, routes and experts:                      $OUT/report.html
Next: source .venv/bin/activate; routing-moe --help                           all commands
      CONFLICT=1 bash example_scripts/compare_methods.sh --small              all rows contested, 6 minutes
      bash example_scripts/run_cross_loss_routing.sh --train_dir my_gym       on tasks of your own
EOT
