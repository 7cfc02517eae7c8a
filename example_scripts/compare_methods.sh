#!/usr/bin/env bash
# Methods that say which tasks share what, on tasks that contradict each other: same gyms and steps, four rates each.
#   bash example_scripts/compare_methods.sh --small           three methods, one gym, one rate: 5 minutes on 2 cores
#   JOBS=2 bash example_scripts/compare_methods.sh            rates by gyms 501 to 503, scores on gyms 601 to 608
# Writes OUTPUT_DIR/methods.csv (a row for each run), rates.csv, overview.csv, comparison.csv. The same call continues.
# Variables: METHODS (of methods/methods.txt, first: baseline; all), FILE (another such list), CONFLICT (0.5), WIDTH (16),
# RATES, TUNE_SEEDS, SEEDS, STEPS (1250), CONTRASTS ("A:B ...", a family), GYM_FLAGS of `routing-moe conflict-gym`,
# SKILLS (16: the number of groups), RESULT (the last file of runs that are not scored), OUTPUT_DIR, JOBS (2).
# Further flags: `routing-moe train`.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
JOBS=${JOBS:-2} ARGS=("$@") RATES=${RATES:-$(or_small "3e-3 6e-3 12e-3 24e-3" 12e-3)}
CONFLICT=${CONFLICT:-0.5} WIDTH=${WIDTH:-16} STEPS=${STEPS:-1250} SKILLS=${SKILLS:-16} GYM_FLAGS=${GYM_FLAGS:-}
take_runs "models/compare_methods/conflict$CONFLICT-width$WIDTH" "$(or_small "601 602 603 604 605 606 607 608" 501)"
TUNE_SEEDS=${TUNE_SEEDS-$(or_small "501 502 503" "")} TOOLS=example_scripts/methods && export OMP_NUM_THREADS=1
declare -A FACTOR UNSEEN_BY COMMAND
while IFS='|' read -r name factor by command; do
    [[ -n $name && $name != \#* ]] || continue
    name=${name// /} && ALL+=" $name" FACTOR[$name]=$factor UNSEEN_BY[$name]=${by// /} COMMAND[$name]=$command
done <"${FILE:-$TOOLS/methods.txt}"
METHODS=${METHODS:-$(or_small "$ALL" "dense cross_loss mbc")}
METHODS=${METHODS# } && known COMMAND $METHODS

# ---- bases, trials of rates, runs, unseen tasks, tables
OF_ALL=("CONFLICT=$CONFLICT" "WIDTH=$WIDTH" "STEPS=$STEPS" "SKILLS=$SKILLS" "GYM_FLAGS=$GYM_FLAGS" "MORE=${ARGS[*]}")
trial() { # SEED RATE DIR COMMANDS
    local words=(env "${OF_ALL[@]}" "SEED=$1" "RATE=$2" "DIR=$3" "GYM=$OUT/gyms/$1" "BART=$OUT/barts$WIDTH/$1"
        "WIDE=$OUT/wide/$1" "BASE=$OUT/base/$1" bash -euc ". $TOOLS/steps.sh $DRY_RUN; $4")
    [ -n "$DRY_RUN" ] || { run "$3/${RESULT:-$SCORES}" "${words[@]}" && return; }
    "${words[@]}" | awk -v dir="$3" '{ print dir "/" NR "\t" $0 }'
}
runs() { # FOLDER SEEDS RATES: with a single rate, that of collect.py if there is one
    for seed in $2; do for name in $METHODS; do for rate in $3; do
        rate=$(awk "BEGIN { print $rate * ${FACTOR[$name]} }") dir=$OUT/$1/$name
        if [ "$1" = tuning ]; then dir+=/$rate; else rate=${CHOSEN[$name]:-$rate}; fi
        trial "$seed" "$rate" "$dir/seed$seed" "${COMMAND[$name]}"
    done; done; done
}
collect() { [ -n "$DRY_RUN" ] || "$PYTHON" $TOOLS/collect.py "$OUT"; }
declare -A CHOSEN=()
# the rate is that of protocols/conflict.md
for seed in $TUNE_SEEDS $SEEDS; do RESULT="" trial "$seed" 6e-3 "$OUT/base/$seed" base; done | in_parallel
runs tuning "$TUNE_SEEDS" "$RATES" | in_parallel
while read -r name rate; do CHOSEN[$name]=$rate; done < <(collect)
if [ -n "$TUNE_SEEDS" ] && [ -z "$DRY_RUN" ]; then # only what could be tuned goes on
    tuned=
    for name in $METHODS; do
        if [ -n "${CHOSEN[$name]:-}" ]; then
            tuned+=" $name"
        else
            echo "$name: no rate has a score on all gyms of TUNE_SEEDS" >&2 && FAILED=1
        fi
    done
    METHODS=${tuned# } && [ -n "$METHODS" ] || exit 1
fi
runs runs "$SEEDS" "${RATES%% *}" | in_parallel
[ -z "${RESULT:-}" ] || { collect && exit "$FAILED"; }
for seed in $SEEDS; do for name in $METHODS; do
    dir=$OUT/runs/$name/seed$seed
    case ${UNSEEN_BY[$name]} in
        names) run "$dir/best/names-${UNSEEN#*/}" "$PYTHON" $TOOLS/borrowed_names.py "$dir" ;;
        routes) run "$dir/best/by_loss-${UNSEEN#*/}" routing-moe train --do_predict --predict_split test \
            --task_routes lowest_loss --prefix by_loss- --output_dir "$dir" ;;
        *) unseen "$dir" ;;
    esac
done; done | in_parallel
collect >/dev/null
routing-moe compare $(printf "$OUT/runs/%s " $METHODS) --gym_per_seed --columns cost dev test categories \
    ${CONTRASTS:+--contrasts} ${CONTRASTS:---baseline ${METHODS%% *}} --output_dir "$OUT" || FAILED=1
exit "$FAILED"
