#!/usr/bin/env bash
# Compare routings with dense models on conflict gyms (docs/conflict_gym.md), where tasks of different skills contradict
# each other: at several levels of conflict, with several seeds (a gym and an untrained BART each), with equal steps.
#   bash example_scripts/compare_conflict.sh
#   JOBS=2 CONFLICTS=1 SEEDS="11 12" VARIANTS="dense clusters oracle" bash example_scripts/compare_conflict.sh
# Variants; those with task vectors train for TOTAL_STEPS - DENSE_STEPS after the dense run that makes the vectors:
#   dense, dense_total       one BART of width 16; of width 32, with about the layer parameters of 4 experts
#   dense_total_flops        dense_total for the number of steps that costs the FLOPs of dense, which is added
#   dense_no_names           dense with the task names hidden
#   task_experts             an expert for each task (embeddings are shared)
#   average, task_random     4 experts: equal weights; a random expert for each task and layer
#   straight_through, softmax, two_stage    4 experts, learned routes
#   balanced                 softmax with --load_balance 0.1
#   gradient_inputs          softmax, the router reads gradient vectors
#   clusters, composed       routes by clusters of gradient vectors: an expert each; or composed of 4 experts per layer
#   text_clusters, fisher_clusters          an expert for each cluster of other vectors, the number of clusters given
#   oracle                   4 experts, the true encoder and decoder parts
# Environment (default):
#   OUTPUT_DIR       folder of gyms/, dense_runs/, vectors/, tuning/ and conflict<c>_<n>skills/<variant>/seed<seed>/
#                    (models/compare_conflict)
#   CONFLICTS        levels of conflict, from 0 to 1 ("0 0.5 1")
#   SKILLS           number of hidden skills, a square (16)
#   SEEDS            seeds ("11 12 13 14 15")
#   VARIANTS         variants (all)
#   RATES            learning rates ("0.003 0.006 0.012"). Each variant has the one with the best dev score on a gym of
#                    TUNE_SEED at conflict 1 with 16 skills (or that of a variant of its kind, see tuned_as in
#                    conflict_variants.sh); a single rate is used as it is
#   TUNE_SEED        seed of the gym that rates are tuned on, which must not be in SEEDS (101)
#   TOTAL_STEPS      steps of every variant, including the dense run (2400)
#   DENSE_STEPS      steps of the dense run (1200), and DENSE_RATE its learning rate (0.003)
#   ROUTER_LR        learning rate of routers and trained task vectors (0.01)
#   TASKS_PER_SKILL  train tasks of a skill (4)
#   GYM_FLAGS        further flags of `python -m task.conflict_gym.generate`, such as "--label_noise 0.1" (none)
#   UNSEEN           variants whose runs also score the unseen tasks ("dense softmax clusters composed oracle")
#   JOBS             number of runs at the same time (1)
# A second call keeps finished runs and continues the others. Runs depend on TOTAL_STEPS, DENSE_STEPS, DENSE_RATE,
# RATES, TUNE_SEED, ROUTER_LR, TASKS_PER_SKILL and GYM_FLAGS: other values of these need another OUTPUT_DIR. Of every
# level of conflict, overview.md has cost, scores and agreement of routes with skills; comparison.md differences with
# intervals; comparison_curves.csv curves.
set -aeuo pipefail

# In the environment, or written here, such as SKILLS=4; `set -a` passes them on to the runs.
set +a

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

ALL="dense dense_total dense_total_flops dense_no_names task_experts average task_random straight_through softmax balanced two_stage"
ALL+=" gradient_inputs text_clusters fisher_clusters clusters composed oracle"

VARIANTS=${VARIANTS:-$ALL} SEEDS=${SEEDS:-11 12 13 14 15} CONFLICTS=${CONFLICTS:-0 0.5 1} SKILLS=${SKILLS:-16}
export OUTPUT_DIR=${OUTPUT_DIR:-models/compare_conflict} JOBS=${JOBS:-1} PYTHON TUNE_SEED=${TUNE_SEED:-101}
export TOTAL_STEPS=${TOTAL_STEPS:-2400} DENSE_STEPS=${DENSE_STEPS:-1200} DENSE_RATE=${DENSE_RATE:-0.003}
export RATES=${RATES:-0.003 0.006 0.012} ROUTER_LR=${ROUTER_LR:-0.01} TASKS_PER_SKILL=${TASKS_PER_SKILL:-4}
export GYM_FLAGS=${GYM_FLAGS:-} UNSEEN=${UNSEEN-dense softmax clusters composed oracle} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
source example_scripts/jobs.sh
source example_scripts/equal_flops.sh
source example_scripts/conflict_variants.sh

# What finished runs depend on, besides the names of their folders.
KEPT="TOTAL_STEPS DENSE_STEPS DENSE_RATE RATES TUNE_SEED ROUTER_LR TASKS_PER_SKILL GYM_FLAGS"

faults=()
for variant in $VARIANTS $UNSEEN; do
    [[ " $ALL " == *" $variant "* ]] || faults+=("VARIANTS, UNSEEN: unknown variant $variant (expected: $ALL)")
done
for seed in $SEEDS; do
    [[ $seed =~ ^[0-9]+$ && $seed != "$TUNE_SEED" ]] || faults+=("SEEDS: $seed is not a whole number other than TUNE_SEED ($TUNE_SEED)")
done
for c in $CONFLICTS; do # in one form only: it is part of the folder
    [[ $c =~ ^(0|1|0\.[0-9]*[1-9])$ ]] || faults+=("CONFLICTS: $c is not a number from 0 to 1, such as 0, 0.25 or 1")
done
for name in RATES DENSE_RATE ROUTER_LR; do
    for value in ${!name}; do
        [[ $value =~ ^([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$ ]] || faults+=("$name: $value is not a number")
    done
done
for name in VARIANTS SEEDS CONFLICTS RATES; do
    twice=$(tr ' ' '\n' <<<"${!name}" | sed '/^$/d' | sort | uniq -d | tr '\n' ' ')
    [ -z "$twice" ] || faults+=("$name: ${twice% } is given more than once")
    [[ ${!name} == *[![:space:]]* ]] || faults+=("$name: no value is given")
done
[[ $SKILLS =~ ^(4|9|16|25|36|49|64)$ ]] || faults+=("SKILLS: $SKILLS is not one of 4 9 16 25 36 49 64")
whole_numbers TOTAL_STEPS DENSE_STEPS TASKS_PER_SKILL JOBS
[ $((DENSE_STEPS % 10)) = 0 ] && [ "$DENSE_STEPS" -lt "$TOTAL_STEPS" ] ||
    faults+=("DENSE_STEPS: $DENSE_STEPS is not a multiple of 10 below TOTAL_STEPS ($TOTAL_STEPS)")
# shellcheck disable=SC2086 # several names
settings_faults $KEPT
if [ ${#faults[@]} -gt 0 ]; then
    printf 'error: %s\n' "${faults[@]}" >&2
    exit 2
fi

if [[ " $VARIANTS " == *" dense_total_flops "* && " $VARIANTS " != *" dense "* ]]; then VARIANTS="dense $VARIANTS"; fi

# jobs_of NAMES SUFFIXES: prints PLACE/NAME/SUFFIX for all places.
jobs_of() {
    local c name suffix
    for c in $CONFLICTS; do
        for suffix in $2; do
            for name in $1; do echo "conflict${c}_${SKILLS}skills/$name/$suffix"; done
        done
    done
}
seeds=$(printf 'seed%s ' $SEEDS)
first=() rest=()
for variant in $VARIANTS; do
    if [ "$variant" = dense ]; then first+=("$variant"); else rest+=("$variant"); fi
done

trap stop_all INT TERM HUP
mkdir -p "$OUTPUT_DIR"
# shellcheck disable=SC2086 # several names
save_settings $KEPT
# No run has --mixed_precision.
DATA_DIR="$OUTPUT_DIR/gyms/*/gym" SPLIT='' MIXED_PRECISION='' announce \
    "BARTs of width 16 and 32, variants: $VARIANTS; conflicts: $CONFLICTS, $SKILLS skills; seeds: $SEEDS" \
    "$TOTAL_STEPS steps, learning rates $RATES; $JOBS at a time" "$OUTPUT_DIR"
# shellcheck disable=SC2046 # lists of names
{
    tuned=() place=conflict1_16skills
    if [[ $RATES == *" "* ]]; then
        for variant in $(for variant in $VARIANTS; do tuned_as "$variant"; done | sort -u); do
            for rate in $RATES; do tuned+=("$place/$variant/lr$rate"); done
        done
        run_jobs make_gym -- "$place/gym/seed$TUNE_SEED"
        run_jobs train_job -- "$place/dense_run/seed$TUNE_SEED"
        run_jobs train_job -- "${tuned[@]}"
    fi
    run_jobs make_gym -- $(jobs_of gym "$seeds")
    run_jobs train_job -- $(jobs_of "${first[*]} dense_run" "$seeds")
    run_jobs train_job -- $(jobs_of "${rest[*]}" "$seeds")
}
trap - INT TERM HUP

status=0
for job in ${tuned[@]+"${tuned[@]}"} $(jobs_of "$VARIANTS" "$seeds"); do
    if ! is_finished "$job"; then
        status=1
        echo "not finished: $job; the end of its log:" >&2
        end_of_log "$folder.log" >&2
    fi
done
echo
for variant in $VARIANTS; do echo "learning rate of $variant: $(rate_of "$variant" 2>&1)"; done
for c in $CONFLICTS; do
    place=$OUTPUT_DIR/conflict${c}_${SKILLS}skills
    order=() # variants with runs, also of earlier calls
    for variant in $ALL; do
        if compgen -G "$place/$variant/*/finished" >/dev/null; then order+=("$variant"); fi
    done
    [ ${#order[@]} -gt 0 ] || continue
    printf '\nConflict %s, %s skills:\n\n' "$c" "$SKILLS"
    "$PYTHON" -m routing_moe.cli.overview "$place" --gym_per_seed --order "${order[@]}" --recovery skill || status=$?
    "$PYTHON" -m routing_moe.cli.compare_runs "$place" --gym_per_seed --order "${order[@]}" \
        $([[ " ${order[*]} " != *" dense "* ]] || echo --baseline dense) || status=$?
done
exit $status
