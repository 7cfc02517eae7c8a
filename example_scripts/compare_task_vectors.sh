#!/usr/bin/env bash
# What kind of task vectors helps the router? Both stages with each kind, several seeds, then tables of the train
# tasks' scores, and of the unseen tasks' without training the model on them. This is not zero-shot if a vector
# has read labels. The kinds have seen of an unseen task: random and descriptions nothing; text unlabelled inputs;
# finetuned_text and fisher labelled rows (task_vectors.sh: of all samples on the embedded gym, else of one);
# trained, which takes the routes of the nearest train task by text, unlabelled inputs of one sample. A line per
# kind before the tables says what its vectors have seen, and so does the column vector_seen of all scores.
#   bash example_scripts/compare_task_vectors.sh
#   SEEDS="1 2 3 4 5" KINDS="random fisher" bash example_scripts/compare_task_vectors.sh
# Environment, besides that of recipe.sh:
#   OUTPUT_DIR  gets vectors/, runs/<kind>/seed<seed>/, and the comparisons in train/ and test/
#               (models/compare_task_vectors)
#   KINDS       which: random text finetuned_text fisher descriptions, all frozen, and unseen tasks routed from their
#               own; and trained, as run_two_stage.sh trains them from random ones of its own width, and unseen tasks
#               routed from the vector of the nearest train task by text (all)
#   SEEDS       of each (42 43 44)
#   DIM         dimension: principal components of all but random ones   (64; on the embedded gym 16)
# Called again, it leaves finished runs as they are and continues the others.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

KINDS=${KINDS:-trained random text finetuned_text fisher descriptions} SEEDS=${SEEDS:-42 43 44}
OUT=${OUTPUT_DIR:-models/compare_task_vectors}
if [ -n "${DATA_DIR:-}" ]; then
    split=${SPLIT:-$DATA_DIR/split.json} DIM=${DIM:-64}
else
    make_skill_gym
    split=${SPLIT:-data/skill_gym/split.json} DIM=${DIM:-16}
fi
whole_numbers DIM

# Vectors of a kind in $OUT/vectors/<kind>: of all tasks, none has seen a dev or test file.
make_vectors() {
    local folder=$OUT/vectors/$1 transform=none
    case $1 in
        trained) return ;;
        random)
            OUTPUT_DIR=$folder bash example_scripts/task_vectors.sh random --taskvecs_dim "$DIM"
            return
            ;;
        fisher) transform=log ;;
    esac
    OUTPUT_DIR=$OUT/raw_vectors/$1 bash example_scripts/task_vectors.sh "$1"
    TASKVECS=$OUT/raw_vectors/$1 SPLIT=$split DIM=$DIM OUTPUT_DIR=$folder \
        bash example_scripts/reduce_task_vectors.sh --transform "$transform"
}

for kind in $KINDS; do make_vectors "$kind"; done
for seed in $SEEDS; do
    for kind in $KINDS; do
        run=$OUT/runs/$kind/seed$seed frozen="--freeze_task_model"
        mkdir -p "$OUT/runs/$kind"
        export TASKVECS=$OUT/vectors/$kind
        if [ "$kind" = trained ]; then unset TASKVECS frozen; fi
        echo "$kind, seed $seed: $run, log in $run.log"
        OUTPUT_DIR=$run STAGE1_FLAGS="${frozen:-} --seed $seed" \
            bash example_scripts/run_two_stage.sh --seed "$seed" >>"$run.log" 2>&1
        [ -f "$run/best/eval-test_tasks-test-performance.csv" ] ||
            "$PYTHON" -m routing_moe.cli.train --do_predict --predict_split test --output_dir "$run" >>"$run.log" 2>&1
    done
done
# What the vectors of a kind have seen of an unseen task, by their meta.json.
seen_by() {
    local seen=
    if [ "$1" = trained ]; then
        seen="unlabelled inputs of one sample"
    elif [ -f "$OUT/vectors/$1/meta.json" ]; then
        seen=$(sed -n 's/^ "seen": "\([^"]*\)",*$/\1/p' "$OUT/vectors/$1/meta.json")
    fi
    echo "${seen:-unknown}"
}

for kind in $KINDS; do echo "$kind: its vector has seen of an unseen task: $(seen_by "$kind")"; done
for section in train test; do
    "$PYTHON" -m routing_moe.cli.compare_runs "$OUT/runs" --predict_split "$section" --order $KINDS \
        --baseline "${KINDS%% *}" --output_dir "$OUT/$section"
done
