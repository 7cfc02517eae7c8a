# Sourced by reproduce_paper.sh, whose variables it reads: tables of the finished runs, also of earlier calls, a page with
# all of them and a report about routes. Sets status to 1 if something is missing.
# shellcheck disable=SC2154 # the variables are set there

tables=$OUTPUT_DIR/tables

exists() { compgen -G "$OUTPUT_DIR/$1" >/dev/null; }

# named FOLDER/ /FILE: prints the systems with FOLDER/<system>/seed<seed>/FILE, multitask and direct first.
named() { for name in direct $ALL; do if exists "$1$name/seed*$2"; then echo "$name"; fi; done; }

# compare SECTION FILE FLAGS: tables and pictures of the scores in FILE of a section of the split, train or test.
compare() {
    local flags=(--predict_split "$1" --output_dir "$tables/$1_tasks" --order)
    exists "runs/*/*/$2" || return 0
    # shellcheck disable=SC2207 # names
    flags+=($(named runs/ /run.json))
    if exists "runs/multitask/*/$2"; then flags+=(--baseline multitask); fi
    "$PYTHON" -m routing_moe.cli.compare_runs "$OUTPUT_DIR/runs" "${flags[@]}" "${@:3}" >"$tables/$1_tasks.log" 2>&1 ||
        { status=1 && cat "$tables/$1_tasks.log" >&2; }
}

# gains_over BASELINE FOLDER FILE TABLE: prints and writes gains over BASELINE of all systems with
# FOLDER/<system>/seed<seed>/FILE and a seed of BASELINE.
gains_over() {
    local name seed seeds=() names=("$1") files=("$OUTPUT_DIR/$2/$1/seed{seed}/$3")
    for file in "$OUTPUT_DIR/$2/$1"/seed*/"$3"; do
        seed=${file#"$OUTPUT_DIR/$2/$1/seed"}
        if [ -f "$file" ]; then seeds+=("${seed%%/*}"); fi
    done
    for name in direct $ALL; do
        for seed in ${seeds[@]+"${seeds[@]}"}; do
            if [ "$name" != "$1" ] && exists "$2/$name/seed$seed/$3"; then
                names+=("$name") files+=("$OUTPUT_DIR/$2/$name/seed{seed}/$3") && break
            fi
        done
    done
    [ ${#files[@]} -gt 1 ] || return 0
    "$PYTHON" example_scripts/compute_arg.py --summary1 "${files[0]}" --summary2 "${files[@]:1}" --names "${names[@]}" \
        --seeds "${seeds[@]}" --output_file "$tables/$4.csv" || status=1
}

mkdir -p "$tables"
tuned=()
for name in $(named few_shot/ /summary.csv); do # direct has no run
    if [ "$name" != direct ]; then tuned=(--few_shot "$OUTPUT_DIR/few_shot"); fi
done
# shellcheck disable=SC2086,SC2046 # lists of names
if exists "runs/*/*/$scores"; then
    compare train $scores --recovery $RECOVERY
    "$PYTHON" -m routing_moe.cli.overview "$OUTPUT_DIR/runs" --output_dir "$tables" --order $(named runs/ /$scores) \
        ${tuned[@]+"${tuned[@]}"} >"$tables/overview.log" 2>&1 || { status=1 && cat "$tables/overview.log" >&2; }
fi
compare test $zero_shot
gains_over multitask runs $zero_shot zero_shot_over_multitask
gains_over multitask few_shot summary.csv few_shot_over_multitask
gains_over direct few_shot summary.csv few_shot_over_direct
# Routes of a task: not those of one expert, average routes, or routes of each example.
routed=()
for run in "$OUTPUT_DIR"/runs/*/seed*; do
    [[ $run == */multitask/* || $run == */average/* || $run == */random/* ]] || [ ! -f "$run/$scores" ] || routed+=("$run")
done
if [ ${#routed[@]} -gt 0 ]; then
    "$PYTHON" -m routing_moe.cli.report "${routed[@]}" --output_file "$tables/report.html" >"$tables/report.log" 2>&1 ||
        { status=1 && cat "$tables/report.log" >&2; }
fi

# section TITLE FILE: prints a section of the page.
section() { [ ! -f "$2" ] || { printf '\n## %s\n\n' "$1" && cat "$2"; }; }
{
    printf '# Tables of %s\n' "$OUTPUT_DIR"
    section "Cost and mean scores" "$tables/overview.md"
    section "Train tasks, by category" "$tables/train_tasks/comparison.md"
    section "Unseen tasks without training on them, by category" "$tables/test_tasks/comparison.md"
    section "Unseen tasks without training on them: gains over multitask" "$tables/zero_shot_over_multitask.md"
    section "Unseen tasks after few-shot fine-tuning: gains over multitask" "$tables/few_shot_over_multitask.md"
    section "Unseen tasks after few-shot fine-tuning: gains over direct fine-tuning" "$tables/few_shot_over_direct.md"
} >"$tables/study.md"
echo "Tables: $tables, all on one page: $tables/study.md$([ ! -f "$tables/report.html" ] || echo "; routes: $tables/report.html")"
