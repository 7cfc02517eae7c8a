#!/usr/bin/env bash
# Analyse the experts of a run: pictures of routes and their dynamics, correlations of experts with features of tasks,
# ablation of experts, and an interactive report page, all in RUN/analysis.
#   bash example_scripts/understand.sh models/moe
#   bash example_scripts/understand.sh runs/seed42 runs/seed43 runs/seed44      also the agreement of the runs
# Without arguments: models/two_stage, which is trained on the embedded gym if necessary.
# Environment (default):
#   OUTPUT_DIR    with several runs: folder of the results for all of them, report.html and tables (models/understood)
#   ABLATE_FLAGS  flags of `python -m routing_moe.cli.ablate`; "none": no ablation (--features all)
# A second call replaces all results, except for finished scores with ablated experts.
set -aeuo pipefail

# In the environment, or written here, such as ABLATE_FLAGS=none; `set -a` passes them on to run_two_stage.sh.
set +a

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

ABLATE_FLAGS=${ABLATE_FLAGS---features all} trained=
if [ $# -eq 0 ]; then trained=yes && set -- models/two_stage; fi
OUT=$1/analysis
if [ $# -gt 1 ]; then OUT=${OUTPUT_DIR:-models/understood}; fi
echo "routes, correlations and ablation ($ABLATE_FLAGS) of the experts of $*; on $(device); output in $OUT"
if [ -n "$trained" ]; then
    OUTPUT_DIR=$1 bash example_scripts/run_two_stage.sh
    # With such small matrices, a second thread slows down training, in particular on a busy machine.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
fi

without_ablation() { echo "note: $run is analysed without ablation: $1" >&2; }

for run in "$@"; do
    stage1=()
    if [ -d "$run/stage1" ]; then stage1=(--before "$run/stage1"); fi
    "$PYTHON" -m routing_moe.cli.inspect_routes "$run" ${stage1[@]+"${stage1[@]}"}
    "$PYTHON" example_scripts/create_gif.py --run "$run"
    "$PYTHON" -m routing_moe.cli.correlate_routes "$run"
    if [ "$ABLATE_FLAGS" = none ]; then
        continue
    elif [ ! -f "$run/run.json" ] || ! compgen -G "$run/best/*.safetensors" >/dev/null; then
        without_ablation "it has no run.json, or no .safetensors weights in best/"
    else
        status=0
        # shellcheck disable=SC2086 # several flags
        "$PYTHON" -m routing_moe.cli.ablate "$run" $ABLATE_FLAGS || status=$?
        case $status in
            0) ;;
            3) without_ablation "see above" ;; # one expert per layer, or routes drawn for each example
            *) exit "$status" ;;
        esac
    fi
done

if [ $# -eq 1 ]; then
    "$PYTHON" -m routing_moe.cli.report "$1"
else
    "$PYTHON" -m routing_moe.cli.inspect_routes "$@" --output_dir "$OUT"
    "$PYTHON" -m routing_moe.cli.correlate_routes "$@" --output_dir "$OUT"
    "$PYTHON" -m routing_moe.cli.report "$@" --output_file "$OUT/report.html"
fi
