#!/usr/bin/env bash
# The study of reproduce_paper.sh on real tasks, at a scale for a laptop: from a small BART that knows English, multi-task
# training, average, task-random and learned routes, two stages, clusters of gradient and of Fisher vectors, and the
# ontology's categories as routes. Every variant has the same number of steps in all: the two stages share them, and
# those of the BART whose gradients are clustered count. Then unseen tasks, zero-shot by ranking and in few-shot grids,
# from each of these starts. Tables of all on one page, with gains (ARG) over multi-task training.
#   DATA_DIR=data/gym bash example_scripts/real_gym_study.sh --dry_run      its runs, and their hours here
#   DATA_DIR=data/gym bash example_scripts/real_gym_study.sh
#   DATA_DIR=data/gym SEEDS="42 43" VARIANTS="multitask two_stage gradient_routing" bash example_scripts/real_gym_study.sh
# The same command continues after an interruption; the third adds runs of another seed to those of the second.
# Environment (default), in addition to that of reproduce_paper.sh, whose values all can be changed:
#   DATA_DIR      gym folder (required)
#   SPLIT         task split JSON (split.json in DATA_DIR)
#   MODEL         plain BART (made by english_bart.sh, with a warm-up on the train inputs of the gym, in
#                 OUTPUT_DIR/english_bart)
#   DENOISING_STEPS    steps of this warm-up, 0 for none (1600)
#   OUTPUT_DIR    (models/real_gym_study) tables/study.md has the tables, tables/report.html the routes
#   VARIANTS      (multitask average task_random straight_through two_stage gradient_routing gradient_upcycled
#                 fisher_clusters ontology)
#   TOTAL_STEPS   steps of each variant, half of them for each stage of two_stage (1200)
#   EVAL_PERIOD   steps between evaluations on the dev files, which choose the checkpoint (a quarter)
#   RATE          learning rate of training (3e-4)
#   CLUSTERS      number of clusters, so of experts (8)
#   SCORED        rows of each test file that are scored (100): of a train task, and three times as many of an unseen task
#                 for zero-shot, twice as many for few-shot scores
#   LEARNING_RATE_LIST, BSZ_LIST, SAMPLES    few-shot grid ("1e-4 3e-4", 8, "100 13 21")
#   FEW_SHOT_STEPS, FEW_SHOT_EVAL_PERIOD     (50, 25)
#   RECOVERY      kinds of features that routes are compared with ("category format domain skill")
#   CASED         "yes" if MODEL distinguishes upper and lower case (no)
set -aeuo pipefail

# In the environment, or written here, such as DATA_DIR=path/to/gym; `set -a` passes them on to reproduce_paper.sh.
set +a

cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -z "${DATA_DIR:-}" ]; then
    echo "error: DATA_DIR is not set; give a gym folder, such as data/gym of build_gym.sh" >&2
    exit 2
fi
export OUTPUT_DIR=${OUTPUT_DIR:-models/real_gym_study} TOTAL_STEPS=${TOTAL_STEPS:-1200}
DENOISING_STEPS=${DENOISING_STEPS:-1600}
if [[ ! $DENOISING_STEPS =~ ^(0|[1-9][0-9]*)$ ]]; then
    echo "error: DENOISING_STEPS is '$DENOISING_STEPS'; it must be a whole number" >&2
    exit 2
fi
if [ -z "${MODEL:-}" ]; then
    # reproduce_paper.sh makes it, after its checks.
    export ENGLISH_BART=$OUTPUT_DIR/english_bart WARM_UP_STEPS=$DENOISING_STEPS
    MODEL=$ENGLISH_BART/warm_bart
    if [ "$DENOISING_STEPS" = 0 ]; then MODEL=$ENGLISH_BART/bart; fi
fi
export MODEL
for name in TOTAL_STEPS SCORED; do
    value=${!name:-100}
    [[ $value =~ ^[1-9][0-9]*$ ]] || { echo "error: $name is '$value'; it must be a whole number of at least 1" >&2 && exit 2; }
done
half=$(((TOTAL_STEPS + 1) / 2)) rows=${SCORED:-100}
lower=--do_lowercase
if [ "${CASED:-no}" = yes ]; then lower=; fi

variants="multitask average task_random straight_through two_stage gradient_routing gradient_upcycled"
export VARIANTS=${VARIANTS:-$variants fisher_clusters ontology}
export EVAL_PERIOD=${EVAL_PERIOD:-$(((TOTAL_STEPS + 3) / 4))}
export STAGE1_STEPS=${STAGE1_STEPS:-$half} STAGE2_STEPS=${STAGE2_STEPS:-$((TOTAL_STEPS - half))}
export STAGE2_EVAL_PERIOD=${STAGE2_EVAL_PERIOD:-$EVAL_PERIOD}
export RECOVERY=${RECOVERY:-category format domain skill}
export CLUSTERS=${CLUSTERS:-8} INIT_EPS=${INIT_EPS:-1e-3} ABLATE_FLAGS=${ABLATE_FLAGS-none}
# 30 steps of adapters are few, but 2500 as published take longer than everything else.
export VECTOR_STEPS=${VECTOR_STEPS:-30} VECTOR_FLAGS=${VECTOR_FLAGS---task_names --max_examples 64}
export TEXT_FLAGS=${TEXT_FLAGS-$lower --max_input_length 192}
export TRAIN_FLAGS=${TRAIN_FLAGS---learning_rate ${RATE:-3e-4} --num_beams 1 --predict_max_examples $rows}
# Temperatures fall from 2 to 0.3 in 40% of the steps, so in 80% of those of the first stage.
export ROUTER_FLAGS=${ROUTER_FLAGS---router_lr 1e-2 --minimum_tau 0.3 --anneal_rate $(awk "BEGIN { print 4.7 / $TOTAL_STEPS }")}
export ZERO_SHOT_FLAGS=${ZERO_SHOT_FLAGS---scoring rank --predict_max_examples $((3 * rows))}
export LEARNING_RATE_LIST=${LEARNING_RATE_LIST:-1e-4 3e-4} BSZ_LIST=${BSZ_LIST:-8} SAMPLES=${SAMPLES:-100 13 21}
export FEW_SHOT_STEPS=${FEW_SHOT_STEPS:-50} FEW_SHOT_EVAL_PERIOD=${FEW_SHOT_EVAL_PERIOD:-25} WARMUP_STEPS=${WARMUP_STEPS:-5}
export FEW_SHOT_FLAGS=${FEW_SHOT_FLAGS---num_beams 1 --predict_max_examples $((2 * rows))}
exec bash example_scripts/reproduce_paper.sh "$@"
