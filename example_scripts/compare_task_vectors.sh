#!/usr/bin/env bash
# Compares methods of computing task vectors: both stages with each and several seeds; scores of train and unseen tasks.
#   bash example_scripts/compare_task_vectors.sh --train_dir data/gym            (--small: on generated tasks)
# Vectors are frozen, except trained ones. The column vector_seen of the scores says what a vector has read of its task.
# Writes OUTPUT_DIR/vectors, runs/<kind>/seed<seed>/, tables in train/ and test/. Further flags: `routing-moe train`.
# Variables: OUTPUT_DIR, SEEDS, KINDS, DIM (of the vectors), JOBS; DATA_DIR, SPLIT.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ARGS=("$@") && take_data
take_runs models/compare_task_vectors "42 43 44" && DIM=${DIM:-$(or_small 64 16)}
KINDS=${KINDS:-trained random text finetuned-text fisher $(or_small descriptions gradient)}

for kind in ${KINDS/trained/}; do # no dev or test file is read
    [[ $kind = random || $kind = descriptions ]] && skip=() || skip=("${SKIP[@]}") # these read no file of a task
    run "$OUT/raw/$kind/meta.json" bash example_scripts/task_vectors.sh $SMALL "$kind" "${DATA[@]}" "${skip[@]}" \
        --output_dir "$OUT/raw/$kind"
done | in_parallel
for kind in ${KINDS/trained/}; do
    [ "$kind" = fisher ] && transform=log || transform=none
    run "$OUT/vectors/$kind/meta.json" routing-moe vectors reduce --taskvecs "$OUT/raw/$kind" --dim "$DIM" \
        --transform $transform --custom_tasks_splits "${SPLIT:-$DATA_DIR/split.json}" --output_dir "$OUT/vectors/$kind"
done | in_parallel

for seed in $SEEDS; do for kind in $KINDS; do
    [ "$kind" = trained ] && vectors="" || vectors="--freeze_task_model --taskvecs $OUT/vectors/$kind"
    run "$OUT/runs/$kind/seed$seed/$SCORES" bash example_scripts/run_two_stage.sh $SMALL \
        "${DATA[@]}" "${ARGS[@]}" --stage1_flags "$vectors" --seed "$seed" --output_dir "$OUT/runs/$kind/seed$seed"
done; done | in_parallel
for seed in $SEEDS; do for kind in $KINDS; do
    unseen "$OUT/runs/$kind/seed$seed"
done; done | in_parallel

for section in train test; do
    routing-moe compare "$OUT/runs" --columns categories --predict_split $section --order $KINDS \
        --baseline "${KINDS%% *}" --output_dir "$OUT/$section" || FAILED=1
done
exit "$FAILED"
