#!/usr/bin/env bash
# Compare methods of computing task vectors: trains both stages with each method and several seeds, and writes tables
# of scores, of train tasks and of unseen tasks (without training the model on them). Scores of unseen tasks are
# not zero-shot if their vectors are computed from labels. Data of an unseen task that its vector has seen:
# random and descriptions none; text unlabelled inputs; finetuned_text and fisher labelled rows (task_vectors.sh: of
# all samples on the embedded gym, otherwise of one); trained, which uses the routes of the nearest train task by
# text vectors, unlabelled inputs of one sample. One line per method before the tables, and the column vector_seen of
# all scores, state it.
#   bash example_scripts/compare_task_vectors.sh
#   SEEDS="1 2 3 4 5" KINDS="random fisher" bash example_scripts/compare_task_vectors.sh
# Environment (default), in addition to that of recipe.sh:
#   OUTPUT_DIR  folder of vectors/, runs/<method>/seed<seed>/, and of the comparisons in train/ and test/
#               (models/compare_task_vectors)
#   KINDS       methods (all): random text finetuned_text fisher descriptions, whose vectors are frozen, and trained,
#               whose vectors run_two_stage.sh initialises at random (with its own dimension) and trains. Unseen tasks
#               are routed by their own vectors, and with trained by that of the nearest train task by text vectors
#   SEEDS       seeds of each method (42 43 44)
#   DIM         dimension of the vectors, all but random ones reduced by principal components (64; on the embedded
#               gym 16)
# A second call keeps finished runs and continues the others.
set -aeuo pipefail

# In the environment, or written here, such as DATA_DIR=path/to/gym; `set -a` passes them on to other scripts.
MODEL=${MODEL:-}
DATA_DIR=${DATA_DIR:-}
SPLIT=${SPLIT:-}
set +a

source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

KINDS=${KINDS:-trained random text finetuned_text fisher descriptions} SEEDS=${SEEDS:-42 43 44}
OUT=${OUTPUT_DIR:-models/compare_task_vectors}
choose_model # one for the vectors and the runs
if [ -n "${DATA_DIR:-}" ]; then
    split=${SPLIT:-$DATA_DIR/split.json} DIM=${DIM:-64}
else
    split=${SPLIT:-$embedded_gym/split.json} DIM=${DIM:-16}
fi
whole_numbers DIM
(recipe && OUTPUT_DIR=$OUT announce_two_stages "model $MODEL, vectors: $KINDS; seeds: $SEEDS")

# Writes $OUT/vectors/<kind> with the vectors of all tasks; no dev or test file is read.
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
# What the vectors of a method have seen of an unseen task, as in their meta.json.
seen_by() {
    local seen=
    if [ "$1" = trained ]; then
        seen="unlabelled inputs of one sample"
    elif [ -f "$OUT/vectors/$1/meta.json" ]; then
        seen=$(sed -n 's/^ "seen": "\([^"]*\)",*$/\1/p' "$OUT/vectors/$1/meta.json")
    fi
    echo "${seen:-unknown}"
}

for kind in $KINDS; do echo "$kind: data of an unseen task that its vector has seen: $(seen_by "$kind")"; done
for section in train test; do
    "$PYTHON" -m routing_moe.cli.compare_runs "$OUT/runs" --predict_split "$section" --order $KINDS \
        --baseline "${KINDS%% *}" --output_dir "$OUT/$section"
done
