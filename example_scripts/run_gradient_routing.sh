#!/usr/bin/env bash
# Routes from gradients, without a router: trains one BART without task names, computes a gradient vector of each task
# at six of its checkpoints, clusters the vectors, and trains a mixture with one expert per cluster, whose routes are
# fixed. Scores train tasks, and unseen tasks along the route of the cluster nearest to their vectors. By default: on
# the embedded conflict gym; with other data by the environment variables of recipe.sh:
#   DATA_DIR=gym SPLIT=split.json OUTPUT_DIR=models/moe bash example_scripts/run_gradient_routing.sh
# Environment (default), in addition to that of recipe.sh, whose TOTAL_STEPS is that of the mixture:
#   OUTPUT_DIR   run folder of the mixture, with the final scores; it has dense/ and vectors/ (models/gradient_routing)
#   DENSE_STEPS  steps of the BART, of which it keeps ten checkpoints; gradients are of those from the middle on
#                (1000; on other data a third of TOTAL_STEPS)
#   DENSE_FLAGS  flags of `python -m routing_moe.cli.train` for the BART, such as "--seed 43" (none)
#   WEIGHTS      weights whose gradients are taken: embeddings, encoder, decoder, layers or all (embeddings)
#   VECTOR_FLAGS flags of `python -m task.task_emb.gradient` (none). "--parts sides" with WEIGHTS=layers: the encoder and
#                the decoder have their own clusters
#   CLUSTERS     number of clusters, or auto: by silhouette (auto)
#   UPCYCLE      "yes": the experts start from the weights of the dense run instead of MODEL's, in another OUTPUT_DIR (no)
#   EACH_SAMPLE  "yes": also the vectors of each sample of the unseen tasks, in OUTPUT_DIR/vectors_each, which few-shot
#                fine-tuning reads (no)
#   ZERO_SHOT_FLAGS  flags for the scores of unseen tasks, such as "--scoring rank" (none)
# Vectors are computed from labelled rows of the first sample of each task, also of unseen tasks, so that their scores
# are not zero-shot. Further arguments are flags for the mixture. Flags on texts, such as --max_input_length, belong to
# all three stages. Run the same command to continue after an interruption; finished stages are kept.
set -aeuo pipefail

# In the environment, or written here, such as DATA_DIR=path/to/gym; `set -a` passes them on to other scripts.
MODEL=${MODEL:-}
DATA_DIR=${DATA_DIR:-}
SPLIT=${SPLIT:-}
OUTPUT_DIR=${OUTPUT_DIR:-models/gradient_routing}
if [ -z "$MODEL$DATA_DIR$SPLIT${TASKVECS:-}" ]; then EMBEDDED_GYM=${EMBEDDED_GYM:-conflict}; fi
set +a

source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
refuse_flags_of_all_stages "$@"
recipe
unset TASKVECS # those that are computed here are used

if [ "$embedded" = conflict ]; then DENSE_STEPS=${DENSE_STEPS:-1000}; fi
DENSE_STEPS=${DENSE_STEPS:-$(((TOTAL_STEPS + 2) / 3))} CLUSTERS=${CLUSTERS:-auto}
whole_numbers DENSE_STEPS
yes_or_no UPCYCLE EACH_SAMPLE
start=()
if [ "${UPCYCLE:-no}" = yes ]; then start=(--vanilla_checkpoint "$OUTPUT_DIR/dense"); fi
[ "$CLUSTERS" = auto ] || whole_numbers CLUSTERS
scores=best/eval-test-performance.csv unseen=best/eval-test_tasks-test-performance.csv

steps="$DENSE_STEPS steps of one BART, then $(value_in --total_steps "$TOTAL_STEPS" "$@") of a mixture"
steps+=", learning rate $(value_in --learning_rate "$LEARNING_RATE" "$@")"
if [ ! -f "$OUTPUT_DIR/$scores" ] || [ ! -f "$OUTPUT_DIR/$unseen" ]; then
    announce "model $MODEL" "$steps, clusters: $CLUSTERS" "$OUTPUT_DIR" "$*"
    make_embedded_gym
fi

period=$((DENSE_STEPS < 10 ? 1 : DENSE_STEPS / 10)) checkpoints=()
for ((step = period; step <= DENSE_STEPS; step += period)); do
    if ((2 * step >= DENSE_STEPS)); then checkpoints+=("$step-steps"); fi
done

# gradient_vectors FOLDER FLAGS: computes vectors from the checkpoints of the BART in OUTPUT_DIR/FOLDER.
gradient_vectors() {
    # shellcheck disable=SC2086 # several flags
    MODEL=$OUTPUT_DIR/dense OUTPUT_DIR=$OUTPUT_DIR/$1 \
        bash example_scripts/task_vectors.sh gradient --hide_task_names --checkpoint_names "${checkpoints[@]}" \
        --weights "${WEIGHTS:-embeddings}" ${lengths[@]+"${lengths[@]}"} ${VECTOR_FLAGS:-} "${@:2}"
}

if [ ! -f "$OUTPUT_DIR/$scores" ]; then
    if [ ! -f "$OUTPUT_DIR/dense/$scores" ]; then
        # shellcheck disable=SC2086 # several flags
        TOTAL_STEPS=$DENSE_STEPS EVAL_PERIOD=$DENSE_STEPS OUTPUT_DIR=$OUTPUT_DIR/dense \
            bash example_scripts/train_multitask_bart.sh --hide_task_names --save_period $period \
            --checkpoint_period $period --resume ${DENSE_FLAGS:-}
    fi
    # Until the BART has begun to learn, clusters of its gradients say nothing about the tasks.
    [ ! -f "$OUTPUT_DIR/dense/best/eval-dev-performance.csv" ] || awk -F, 'NR > 1 { score += $5; constant += $7 }
        END { if (score < 1.5 * constant) print "note: the dense run has hardly learned anything: its mean dev score is " \
            score / (NR - 1) ", that of constant answers " constant / (NR - 1) "; its clusters may mean nothing, raise DENSE_STEPS" }' \
        "$OUTPUT_DIR/dense/best/eval-dev-performance.csv" >&2
    gradient_vectors vectors
    if [ "${EACH_SAMPLE:-no}" = yes ]; then gradient_vectors vectors_each --tasks test --samples each; fi
    TASKVECS=$OUTPUT_DIR/vectors \
        bash example_scripts/train_routing_bart.sh --task_routes "clusters:$CLUSTERS" --resume ${start[@]+"${start[@]}"} "$@"
fi
if [ ! -f "$OUTPUT_DIR/$unseen" ] &&
    "$PYTHON" -m routing_moe.cli.list_tasks --split "${SPLIT:-$DATA_DIR/split.json}" test >/dev/null 2>&1; then
    # shellcheck disable=SC2086 # several flags
    "$PYTHON" -m routing_moe.cli.train --do_predict --predict_split test --output_dir "$OUTPUT_DIR" \
        ${precision[@]+"${precision[@]}"} ${ZERO_SHOT_FLAGS:-}
fi
echo "$OUTPUT_DIR is finished: scores in $OUTPUT_DIR/$scores$([ ! -f "$OUTPUT_DIR/$unseen" ] || echo " and $unseen")"
