#!/usr/bin/env bash
# Trains all types of routing with several seeds, and compares them in a table and a picture.
#   bash example_scripts/compare_routings.sh --train_dir data/gym                          (--small: on generated tasks)
#   JOBS=8 SEEDS="1 2 3" VARIANTS="multitask softmax" bash example_scripts/compare_routings.sh --train_dir data/gym
# Further flags are those of `routing-moe train` for all runs. The same command keeps finished runs and continues.
# Writes OUTPUT_DIR/<variant>/seed<seed>/, comparison.csv and pictures. A variant of your own is a line in FLAGS; the
# first of VARIANTS is the baseline. Variables: OUTPUT_DIR, SEEDS, VARIANTS, JOBS, DATA_DIR, SPLIT.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ARGS=("$@") && take_data
take_runs models/compare_routings "42 43 44"

declare -A FLAGS=( # without noise on the experts (--init_eps), and without dropout, they would hardly diverge
    [multitask]="train_multitask_bart.sh"
    [multitask_no_names]="train_multitask_bart.sh --hide_task_names"
    [average]="train_avg_routing.sh --init_eps 1e-2"
    [random]="train_random_routing.sh --init_eps 1e-2"
    [task_random]="train_task_random_routing.sh --init_eps 1e-2"
    [softmax]="train_routing_bart.sh --init_eps 1e-2 --router_mode softmax"
    [gumbel]="train_routing_bart.sh --init_eps 1e-2 --router_mode gumbel_softmax"
    [straight_through]="train_routing_bart.sh --init_eps 1e-2"
    [top_k]="train_routing_bart.sh --init_eps 1e-2 --router_mode top_k --router_top_k 2"
    [merged_parameters]="train_routing_bart.sh --init_eps 1e-2 --router_mode softmax --expert_mixing parameters"
    [lora]="train_lora.sh"
    [poly]="train_poly.sh"
    [mhr]="train_poly.sh --lora_splits 4"
    [cross_loss]="run_cross_loss_routing.sh"
    [two_stage]="run_two_stage.sh --stage1 $OUT/straight_through/@SEED" # keeps its routes
)
VARIANTS=${VARIANTS:-multitask multitask_no_names average random task_random softmax gumbel straight_through top_k
    merged_parameters lora poly mhr cross_loss two_stage}
known FLAGS $VARIANTS

train() { # PHASE: 1, or 2 for variants that read other runs
    for seed in $SEEDS; do for name in $VARIANTS; do
        dir=$OUT/$name/seed$seed phase=1
        [[ ${FLAGS[$name]} != *@SEED* ]] || phase=2
        read -ra flags <<<"${FLAGS[$name]//@SEED/seed$seed}"
        [ $phase != "$1" ] || run "$dir/$SCORES" bash "example_scripts/${flags[0]}" $SMALL "${flags[@]:1}" \
            "${DATA[@]}" "${ARGS[@]}" --seed "$seed" --output_dir "$dir"
    done; done
}
for phase in 1 2; do train $phase | in_parallel; done

routing-moe compare "$OUT" --columns categories --order $VARIANTS --baseline "${VARIANTS%% *}" || FAILED=1
exit "$FAILED"
