#!/usr/bin/env bash
# Train all types of routing with several seeds, and compare them in a table and a picture.
#   bash example_scripts/compare_routings.sh
#   JOBS=4 SEEDS="1 2 3 4 5" VARIANTS="multitask softmax" bash example_scripts/compare_routings.sh
# Environment (default), in addition to that of recipe.sh:
#   OUTPUT_DIR     folder of the runs <variant>/seed<seed>/ and the comparison (models/compare_routings)
#   VARIANTS       variants to train (all, see below; gradient_routing only with MATCH=steps)
#   SEEDS          seeds of each variant ("42 43 44")
#   JOBS           number of runs at the same time (1)
#   BASELINE       variant that differences are relative to (multitask, if it is in OUTPUT_DIR)
#   MIXTURE_FLAGS  flags of all variants with several experts, such as "--num_experts 4" (none); not of
#                  gradient_routing, whose clusters give the number of experts
#   INIT_EPS       standard deviation of the noise on each expert's weights (1e-2). Without dropout, almost equal
#                  experts get almost equal gradients and do not diverge; the comparison prints their final distance
#   MATCH          "steps": TOTAL_STEPS for all runs (two_stage: in each stage; gradient_routing: after the DENSE_STEPS
#                  of its dense run, see run_gradient_routing.sh); "flops": each run has the number of steps with the
#                  training FLOPs of the run of MATCH_TO with the same seed; OUTPUT_DIR is then
#                  models/compare_routings_equal_flops by default (steps)
#   MATCH_TO       variant whose FLOPs MATCH=flops matches (straight_through)
# Further arguments are flags of `python -m routing_moe.cli.train` for all runs. A second call keeps finished runs and
# continues the others.
set -aeuo pipefail

# In the environment, or written here, such as DATA_DIR=path/to/gym; `set -a` passes them on to other scripts.
MODEL=${MODEL:-}
DATA_DIR=${DATA_DIR:-}
SPLIT=${SPLIT:-}
TASKVECS=${TASKVECS:-}
set +a

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

ALL="multitask multitask_no_names average random task_random softmax gumbel straight_through top_k merged_parameters gradient_routing two_stage"
SEEDS=${SEEDS:-42 43 44} JOBS=${JOBS:-1}
export EMBEDDED_GYM=${EMBEDDED_GYM:-skill} INIT_EPS=${INIT_EPS:-1e-2} MATCH=${MATCH:-steps} MATCH_TO=${MATCH_TO:-straight_through} MIXTURE_FLAGS=${MIXTURE_FLAGS:-}
case $MATCH in
    flops) default=models/compare_routings_equal_flops VARIANTS=${VARIANTS:-${ALL/gradient_routing /}} ;;
    *) default=models/compare_routings VARIANTS=${VARIANTS:-$ALL} ;;
esac
export OUTPUT_DIR=${OUTPUT_DIR:-$default}
unset UPCYCLE # experts of gradient_routing do not start from its dense run
refuse_flags_of_all_stages "$@"
choose_model # one for all runs
source example_scripts/equal_flops.sh
source example_scripts/jobs.sh
source example_scripts/variants.sh

finished() { [ -f "$OUTPUT_DIR/$1/best/eval-test-performance.csv" ]; }

# train_one FLAGS VARIANT/seedSEED: trains a run unless it is finished, and writes its seconds to times.csv.
train_one() {
    local run=${!#} variant folder seed start ended=failed
    set -- "${@:1:$#-1}"
    variant=${run%/*} seed=${run##*/seed} folder=$OUTPUT_DIR/$run
    if finished "$run"; then
        echo "exists   $run"
        return
    fi
    case $variant in
        multitask*) ;; # one expert
        two_stage) ;;  # the number of experts of stage 1; its merge reads INIT_EPS
        gradient_routing) # the number of experts of its clusters
            export DENSE_FLAGS="--seed $seed $*"
            set -- --init_eps "$INIT_EPS" "$@"
            ;;
        *) set -- --init_eps "$INIT_EPS" $MIXTURE_FLAGS "$@" ;;
    esac
    mkdir -p "$OUTPUT_DIR/$variant"
    start=$SECONDS
    # Ctrl-C also reaches the training process, which logs what it has saved.
    trap 'echo "$variant,seed$seed,$((SECONDS - start)),interrupted" >>"$OUTPUT_DIR/times.csv"; exit 255' INT TERM
    echo "started  $run"
    if [ "$MATCH" = flops ] && ! equal_flops "$variant" "$seed" "$@" >>"$folder.log" 2>&1; then
        echo "error: the number of steps with the FLOPs of $MATCH_TO/seed$seed could not be computed" >>"$folder.log"
    elif [ "$MATCH" = steps ] && [ "$variant" = two_stage ] && ! finished "straight_through/seed$seed"; then
        echo "error: its first stage, straight_through/seed$seed, is not finished" >>"$folder.log"
    elif STAGE1=${OWN_STAGE1:-$OUTPUT_DIR/straight_through/seed$seed} OUTPUT_DIR=$folder \
        bash example_scripts/$(script_of "$variant") --seed "$seed" --resume "$@" >>"$folder.log" 2>&1; then
        ended=finished
    fi
    echo "$variant,seed$seed,$((SECONDS - start)),$ended" >>"$OUTPUT_DIR/times.csv"
    printf '%-8s %s\n' "$ended" "$run after $((SECONDS - start)) s"
}

export -f train_one finished

faults=()
for variant in $VARIANTS; do
    [[ " $ALL " == *" $variant "* ]] || faults+=("VARIANTS: unknown variant $variant (expected: $ALL)")
done
for seed in $SEEDS; do
    [[ $seed =~ ^[0-9]+$ ]] || faults+=("SEEDS: $seed is not a whole number")
done
for names in "$VARIANTS" "$SEEDS"; do
    twice=$(tr ' ' '\n' <<<"$names" | sed '/^$/d' | sort | uniq -d | tr '\n' ' ')
    [ -z "$twice" ] || faults+=("VARIANTS, SEEDS: $twice is given more than once")
done
if [ -n "${BASELINE:-}" ] && [[ " $VARIANTS " != *" $BASELINE "* ]] && [ ! -d "$OUTPUT_DIR/$BASELINE" ]; then
    faults+=("BASELINE: $BASELINE is neither in VARIANTS nor a folder in $OUTPUT_DIR")
fi
[[ $MATCH =~ ^(steps|flops)$ ]] || faults+=("MATCH: $MATCH is not one of steps, flops")
if [[ " ${ALL%gradient_routing*} " != *" $MATCH_TO "* ]]; then
    faults+=("MATCH_TO: $MATCH_TO is not a variant with one stage (expected: ${ALL% gradient_routing*})")
fi
if [ "$MATCH" = flops ] && [[ " $VARIANTS " == *" gradient_routing "* ]]; then
    faults+=("VARIANTS: gradient_routing cannot be trained to given FLOPs; leave it out, or set MATCH=steps")
fi
[[ $JOBS =~ ^[1-9][0-9]*$ ]] || faults+=("JOBS: $JOBS is not a whole number of at least 1")
for flag in "$@"; do
    case ${flag%%=*} in
        --total_steps) faults+=("$flag: cannot be given for all runs; set TOTAL_STEPS instead") ;;
        --avg_routing | --random_routing | --task_level_random_routing | --router_mode | --router_top_k | \
            --expert_mixing | --num_experts | --init_eps | --hide_task_names | --seed | --prefix | --predict_split)
            faults+=("$flag: cannot be given for all runs; each variant sets it (see VARIANTS, SEEDS, MIXTURE_FLAGS, INIT_EPS)") ;;
    esac
done
if [ ${#faults[@]} -gt 0 ]; then
    printf 'error: %s\n' "${faults[@]}" >&2
    exit 2
fi

reference=() first=() second=()
if [ "$MATCH" = flops ]; then
    for seed in $SEEDS; do reference+=("$MATCH_TO/seed$seed"); done
fi
for variant in $VARIANTS; do
    for seed in $SEEDS; do
        if [ "$MATCH" = flops ]; then
            if [ "$variant" != "$MATCH_TO" ]; then first+=("$variant/seed$seed"); fi
        elif [ "$variant" = two_stage ]; then
            second+=("two_stage/seed$seed")
            # two_stage needs the run of its stage 1.
            [[ " $VARIANTS " == *" straight_through "* ]] || first+=("straight_through/seed$seed")
        else
            first+=("$variant/seed$seed")
        fi
    done
done

mkdir -p "$OUTPUT_DIR"
[ -f "$OUTPUT_DIR/times.csv" ] || echo "variant,run,seconds,ended" >"$OUTPUT_DIR/times.csv"
(
    source example_scripts/recipe.sh
    variables_of "$@"
    recipe
    flags_of_routes --initialize_from_vanilla "$@"
    announce_training "model $MODEL" "$@"
    echo "variants: $VARIANTS; seeds: $SEEDS; $JOBS at a time"
    make_embedded_gym # once for all runs
)
trap stop_all INT TERM HUP
run_jobs train_one "$@" -- ${reference[@]+"${reference[@]}"}
run_jobs train_one "$@" -- ${first[@]+"${first[@]}"}
run_jobs train_one "$@" -- ${second[@]+"${second[@]}"}
trap - INT TERM HUP

echo
status=0
for run in ${reference[@]+"${reference[@]}"} ${first[@]+"${first[@]}"} ${second[@]+"${second[@]}"}; do
    if ! finished "$run"; then
        status=1
        echo "not finished: $run; the end of $OUTPUT_DIR/$run.log:" >&2
        end_of_log "$OUTPUT_DIR/$run.log" >&2
    fi
done
awk -F, 'NR > 1 { seconds += $3 } END { printf "All runs, including earlier calls: %.1f minutes\n\n", seconds / 60 }' \
    "$OUTPUT_DIR/times.csv"

exists() { compgen -G "$OUTPUT_DIR/$1" >/dev/null; }

exists "*/*/best/eval-test-performance.csv" || exit 1
order=()
for variant in $ALL; do
    if exists "$variant/*/run.json"; then order+=("$variant"); fi
done
if [ -z "${BASELINE+given}" ] && exists "multitask/*/best/eval-test-performance.csv"; then BASELINE=multitask; fi
"$PYTHON" -m routing_moe.cli.compare_runs "$OUTPUT_DIR" ${order[@]+--order "${order[@]}"} \
    ${BASELINE:+--baseline "$BASELINE"} || status=$?
exit $status
