#!/usr/bin/env bash
# Train a task-level mixture-of-experts and predict with it. By default: on the embedded gym; with other data by the
# environment variables of recipe.sh, such as
#   MODEL=facebook/bart-base DATA_DIR=gym SPLIT=split.json OUTPUT_DIR=models/moe bash example_scripts/train_routing_bart.sh
# Further arguments are flags of `python -m routing_moe.cli.train`. With --avg_routing, --random_routing,
# --task_level_random_routing or --num_experts 1, a baseline is trained with the same hyperparameters; with
# --task_routes, routes are given instead of learned (those of clusters:K by the vectors in TASKVECS).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

OUTPUT_DIR=${OUTPUT_DIR:-models/routing_bart}
case " $* " in
    *" --task_routes_as start "* | *" --task_routes_as=start "*) set -- "${learned[@]}" "$@" ;;
    *" --task_routes "* | *" --task_routes="*) set -- ${TASKVECS:+--taskvecs "$TASKVECS"} "$@" ;;
    *" --avg_routing "* | *" --random_routing "* | *" --task_level_random_routing "* | *" --num_experts 1 "* | \
        *" --num_experts=1 "*) ;;
    *) set -- "${learned[@]}" "$@" ;;
esac
train --model "$MODEL" --initialize_from_vanilla "$@"
