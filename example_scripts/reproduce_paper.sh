#!/usr/bin/env bash
# The study of the paper: task vectors, all routings and baselines, both stages, zero-shot scores, few-shot grids.
#   JOBS=8 bash example_scripts/reproduce_paper.sh --train_dir data/gym --skip_malformed      after build_gym.sh
#   VARIANTS="multitask straight_through" bash example_scripts/reproduce_paper.sh --small      two variants, generated tasks
# Further flags: of all trainings. Writes OUTPUT_DIR/vectors, runs, few_shot (of each variant and seed) and tables.
# Variables: OUTPUT_DIR, SEEDS, VARIANTS (first: baseline), FEW_SHOT_FLAGS (of finetune), JOBS, DATA_DIR, SPLIT.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ARGS=("$@") && take_data
take_runs models/reproduce_paper 42 && VECTORS=$OUT/vectors DIM=$(or_small 64 16)
read -ra FEW_SHOT_FLAGS <<<"${FEW_SHOT_FLAGS:-}"

declare -A TRAIN=( # the first stages of two_stage and fisher_two_stage are runs of straight_through and fisher
    [multitask]="train_multitask_bart.sh"
    [average]="train_avg_routing.sh"
    [random]="train_random_routing.sh"
    [task_random]="train_task_random_routing.sh"
    [softmax]="train_routing_bart.sh --router_mode softmax"
    [gumbel]="train_routing_bart.sh --router_mode gumbel_softmax"
    [straight_through]="train_routing_bart.sh"
    [lstm]="train_routing_bart.sh --router_nn_type lstm"
    [transformer]="train_routing_bart.sh --router_nn_type transformer"
    [text]="train_routing_bart.sh --freeze_task_model --taskvecs $VECTORS/text"
    [fisher]="train_routing_bart.sh --freeze_task_model --taskvecs $VECTORS/fisher$DIM"
    [two_stage]="run_two_stage.sh --stage1 $OUT/runs/straight_through/@SEED"
    [fisher_two_stage]="run_two_stage.sh --stage1 $OUT/runs/fisher/@SEED"
)
declare -A START=( # of few-shot fine-tuning; direct: from the plain BART
    [direct]="finetune_a_list_of_tasks.sh test None direct"
    [multitask]="finetune_a_list_of_tasks.sh test @RUN multitask"
    [average]="finetune_a_list_of_tasks_moe_avg.sh test @RUN average"
    [random]="finetune_a_list_of_tasks_moe_random.sh test @RUN random"
    [task_random]="finetune_a_list_of_tasks_moe_random2.sh test @RUN task_random"
    [text]="finetune_a_list_of_tasks_moe.sh test @RUN text --taskvecs $VECTORS/text_each"
    [fisher]="finetune_a_list_of_tasks_moe.sh test @RUN fisher --taskvecs $VECTORS/fisher${DIM}_each"
    [fisher_two_stage]="finetune_a_list_of_tasks_moe.sh test @RUN fisher_two_stage --taskvecs $VECTORS/fisher${DIM}_each"
)
VARIANTS=${VARIANTS:-multitask average random task_random softmax gumbel straight_through lstm transformer text fisher
    two_stage fisher_two_stage}
known TRAIN $VARIANTS

# Vectors of train and test tasks, and for few-shot fine-tuning of each sample of the test tasks from its own rows.
for kind in text fisher; do
    [[ $VARIANTS = *$kind* ]] || continue
    run "$VECTORS/$kind/meta.json" bash example_scripts/task_vectors.sh $SMALL $kind "${DATA[@]}" "${SKIP[@]}" \
        --tasks train test --output_dir "$VECTORS/$kind"
    run "$VECTORS/${kind}_each/meta.json" bash example_scripts/task_vectors.sh $SMALL $kind "${DATA[@]}" "${SKIP[@]}" \
        --tasks test --samples each --output_dir "$VECTORS/${kind}_each"
done | in_parallel
if [[ $VARIANTS = *fisher* ]]; then
    run "$VECTORS/fisher$DIM/meta.json" routing-moe vectors reduce --taskvecs "$VECTORS/fisher" --dim "$DIM" \
        --custom_tasks_splits "${SPLIT:-$DATA_DIR/split.json}" --transform log --output_dir "$VECTORS/fisher$DIM" |
        in_parallel
    run "$VECTORS/fisher${DIM}_each/meta.json" routing-moe vectors reduce --taskvecs "$VECTORS/fisher_each" \
        --like "$VECTORS/fisher$DIM" --output_dir "$VECTORS/fisher${DIM}_each" | in_parallel
fi

train() { # PHASE: 1, or 2 for variants that read other runs
    for seed in $SEEDS; do for name in $VARIANTS; do
        dir=$OUT/runs/$name/seed$seed phase=1
        [[ ${TRAIN[$name]} != *@SEED* ]] || phase=2
        read -ra flags <<<"${TRAIN[$name]//@SEED/seed$seed}"
        [ $phase != "$1" ] || run "$dir/$SCORES" bash "example_scripts/${flags[0]}" $SMALL "${flags[@]:1}" \
            "${DATA[@]}" --predict_max_examples 100 "${ARGS[@]}" --seed "$seed" --output_dir "$dir"
    done; done
}
for phase in 1 2; do train $phase | in_parallel; done

# Zero-shot scores, the grid of few-shot fine-tuning on each test task, pictures and a report of the two stages.
for seed in $SEEDS; do for name in direct $VARIANTS; do
    dir=$OUT/runs/$name/seed$seed few=$OUT/few_shot/$name/seed$seed
    read -ra words <<<"${START[$name]:-finetune_a_list_of_tasks_moe.sh test @RUN $name}"
    words=("${words[@]//@RUN/$dir}")
    [ "$name" = direct ] || unseen "$dir"
    [ "$name" != two_stage ] || run "$dir/analysis/report.html" bash example_scripts/understand.sh "$dir"
    run "$few/summary.csv" env OUTPUT_DIR="$few" bash "example_scripts/${words[0]}" $SMALL "${words[@]:1}" "${DATA[@]}" \
        "${SKIP[@]}" "${FEW_SHOT_FLAGS[@]}" --seed "$seed"
done; done | in_parallel

routing-moe compare "$OUT/runs" --columns cost dev test unseen --few_shot "$OUT/few_shot" --output_dir "$OUT/tables" ||
    FAILED=1
for section in train test; do
    routing-moe compare "$OUT/runs" --columns categories --predict_split $section --baseline "${VARIANTS%% *}" \
        --output_dir "$OUT/tables/$section" || FAILED=1
done
routing-moe compute-arg "$OUT/few_shot" --baseline direct --output_file "$OUT/tables/gains_over_direct.csv" || FAILED=1
for folder in runs few_shot; do
    routing-moe compute-arg "$OUT/$folder" --baseline "${VARIANTS%% *}" \
        --output_file "$OUT/tables/gains_of_$folder.csv" || FAILED=1
done
exit "$FAILED"
