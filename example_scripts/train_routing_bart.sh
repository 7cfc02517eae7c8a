#!/usr/bin/env bash
# Train a task-level mixture-of-experts and predict with it: on the embedded gym as it is; on yours by the
# environment variables that recipe.sh explains, such as
#   MODEL=facebook/bart-base DATA_DIR=gym SPLIT=split.json OUTPUT_DIR=models/moe bash example_scripts/train_routing_bart.sh
# Further flags of `python -m routing_moe.cli.train` may follow the script's name; with --avg_routing,
# --random_routing, --task_level_random_routing or --num_experts 1 it trains a baseline by the same recipe.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

OUTPUT_DIR=${OUTPUT_DIR:-models/routing_bart}
case " $* " in
    *" --avg_routing "* | *" --random_routing "* | *" --task_level_random_routing "* | *" --num_experts 1 "* | \
        *" --num_experts=1 "*) ;;
    *) set -- "${learned[@]}" "$@" ;;
esac
train --model "$MODEL" --initialize_from_vanilla "$@"
