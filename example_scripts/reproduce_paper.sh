#!/usr/bin/env bash
# Reproduce the study: gym, task vectors, every routing and baseline, both stages, zero-shot scores and few-shot grids
# of all test tasks from every start, tables of gains (ARG), figures. All results are below OUTPUT_DIR.
#   bash example_scripts/reproduce_paper.sh                                       small, on the embedded gym
#   MODEL=facebook/bart-base bash example_scripts/reproduce_paper.sh              the published settings, on data/gym
#   MODEL=facebook/bart-base bash example_scripts/reproduce_paper.sh --dry_run    its runs, and their hours here
#   MODEL=facebook/bart-base JOBS=8 bash example_scripts/reproduce_paper.sh       with a GPU for each of 8 runs
# A run is a folder, finished when its result file exists: the same command continues after Ctrl-C or a failure. A run
# that fails is listed at the end; the runs that need it are skipped.
# Environment (default; default with the embedded tiny BART):
#   MODEL          plain BART, a hub name or a folder (facebook/bart-base if DATA_DIR, SPLIT or TASKVECS is given, else
#                  the embedded tiny BART, task/skill_gym/tiny_bart)
#   DATA_DIR       gym folder (data/gym, built by build_gym.sh if tasks of SPLIT are missing; the embedded gym)
#   SPLIT          task split JSON (split.json of a given DATA_DIR, else dataloader/splits/random.json;
#                  8 train and 4 test tasks)
#   OUTPUT_DIR     folder of vectors/, runs/<variant>/seed<seed>/, few_shot/<start>/seed<seed>/, tables/, logs/
#                  (models/reproduce_paper)
#   VARIANTS       what to train (PUBLISHED, see below); the first stage of a two-stage variant is added
#   STARTS         what to fine-tune (direct, which is MODEL itself, and all of VARIANTS)
#   SEEDS          seeds of each variant and start (42)
#   JOBS           runs at the same time (1; 2), which divide the cores, or the visible GPUs: as many JOBS as GPUs have
#                  one each
#   NUM_WORKERS    fine-tuning configurations, or tasks of vectors, at the same time in each run, on its GPUs (1)
#   TOTAL_STEPS, EVAL_PERIOD    training (30000, 750; 100, 100)
#   STAGE1_STEPS, STAGE2_STEPS  stages of two-stage variants (TOTAL_STEPS, 2 * TOTAL_STEPS; TOTAL_STEPS, TOTAL_STEPS). With
#                  TOTAL_STEPS, stage 1 is the run of straight_through or fisher, else one of its own
#   STAGE2_EVAL_PERIOD    (a twentieth of STAGE2_STEPS; EVAL_PERIOD)
#   DENSE_STEPS    those of TOTAL_STEPS that gradient_routing and gradient_upcycled spend on the BART whose gradients they
#                  take (a third), each on its own; the experts of gradient_upcycled start from its weights
#   LEARNING_RATE_LIST, BSZ_LIST, SAMPLES     few-shot grid ("1e-5 2e-5 5e-5", "2 4 8", all; "1e-3", "8", all);
#                  SAMPLES may also be first, or seeds such as "100 13 21"
#   FEW_SHOT_STEPS, FEW_SHOT_EVAL_PERIOD, WARMUP_STEPS    its training (1000, 100, 100; 40, 20, 4)
#   DIM            dimension of the reduced Fisher vectors, less than the number of train tasks (64; 4)
#   VECTOR_STEPS   steps of each task's adapters for Fisher vectors (2500; 20)
#   CLUSTERS       number of clusters of gradient and of Fisher vectors, or auto: by silhouette (auto)
#   INIT_EPS       standard deviation of the noise on each expert's weights (1e-8; 1e-2)
#   TEXT_FLAGS     flags on texts for all commands, such as "--do_lowercase --max_input_length 192" (none)
#   TRAIN_FLAGS, ROUTER_FLAGS, ZERO_SHOT_FLAGS, FEW_SHOT_FLAGS, VECTOR_FLAGS    further flags: of all trainings and their
#                  scores of train tasks ("--predict_max_examples 100"), of those with a router (none), of the scores of
#                  unseen tasks (none), of fine-tuning (none), of text and Fisher vectors ("--recipe published";
#                  "--max_examples 32")
#   GRADIENT_FLAGS further flags of gradient vectors (none)
#   MIXED_PRECISION    of all commands that compute gradients or scores: no, bf16 or, without gradient vectors, fp16
#                  (bf16 on a GPU that supports it). bf16 is also faster on CPUs with AVX512-BF16 or AMX
#   ENGLISH_BART   folder in which english_bart.sh makes MODEL, with its variable WARM_UP_STEPS (none)
#   RECOVERY       kinds of features that routes are compared with ("category")
#   ABLATE_FLAGS   flags of `python -m routing_moe.cli.ablate` for the figures; none: no ablation (--features all)
# Learning rates of training are those of recipe.sh; variables for them are ignored.
set -aeuo pipefail

# In the environment, or written here, such as DATA_DIR=path/to/gym; `set -a` passes them on to the runs.
set +a

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
source example_scripts/jobs.sh
source example_scripts/variants.sh
source example_scripts/reproduce_paper_plan.sh

PUBLISHED="multitask average random task_random softmax gumbel straight_through lstm transformer text fisher"
PUBLISHED+=" two_stage fisher_two_stage"
ALL="$PUBLISHED gradient_routing gradient_upcycled fisher_clusters ontology"
STEPS="vectors reduction reduction_each training stage2 zero_shot few_shot figures"

# ---- settings

export OUTPUT_DIR=${OUTPUT_DIR:-models/reproduce_paper}
VARIANTS=${VARIANTS:-$PUBLISHED} SEEDS=${SEEDS:-42} builds_gym=
STARTS=${STARTS:-direct $VARIANTS}
export EMBEDDED_GYM=skill
choose_model
if ! is_tiny; then
    TOTAL_STEPS=${TOTAL_STEPS:-30000} EVAL_PERIOD=${EVAL_PERIOD:-750}
    STAGE2_STEPS=${STAGE2_STEPS:-$((2 * TOTAL_STEPS))}
    STAGE2_EVAL_PERIOD=${STAGE2_EVAL_PERIOD:-$((STAGE2_STEPS < 20 ? 1 : STAGE2_STEPS / 20))}
    LEARNING_RATE_LIST=${LEARNING_RATE_LIST:-1e-5 2e-5 5e-5} BSZ_LIST=${BSZ_LIST:-2 4 8}
    FEW_SHOT_STEPS=${FEW_SHOT_STEPS:-1000} FEW_SHOT_EVAL_PERIOD=${FEW_SHOT_EVAL_PERIOD:-100}
    WARMUP_STEPS=${WARMUP_STEPS:-100} DIM=${DIM:-64} VECTOR_STEPS=${VECTOR_STEPS:-2500} INIT_EPS=${INIT_EPS:-1e-8}
    JOBS=${JOBS:-1} longest=512 longest_answer=64 beams=4 VECTOR_FLAGS=${VECTOR_FLAGS---recipe published}
    if [ -z "${DATA_DIR:-}" ]; then DATA_DIR=data/gym SPLIT=${SPLIT:-dataloader/splits/random.json} builds_gym=yes; fi
else
    TOTAL_STEPS=${TOTAL_STEPS:-100} EVAL_PERIOD=${EVAL_PERIOD:-100} STAGE2_STEPS=${STAGE2_STEPS:-$TOTAL_STEPS}
    STAGE2_EVAL_PERIOD=${STAGE2_EVAL_PERIOD:-$EVAL_PERIOD}
    LEARNING_RATE_LIST=${LEARNING_RATE_LIST:-1e-3} BSZ_LIST=${BSZ_LIST:-8}
    FEW_SHOT_STEPS=${FEW_SHOT_STEPS:-40} FEW_SHOT_EVAL_PERIOD=${FEW_SHOT_EVAL_PERIOD:-20}
    WARMUP_STEPS=${WARMUP_STEPS:-4} DIM=${DIM:-4} VECTOR_STEPS=${VECTOR_STEPS:-20} INIT_EPS=${INIT_EPS:-1e-2}
    JOBS=${JOBS:-2} longest=128 longest_answer=32 beams=1 VECTOR_FLAGS=${VECTOR_FLAGS---max_examples 32}
    if [ -z "${DATA_DIR:-}" ]; then SPLIT=${SPLIT:-example_scripts/reproduce_paper.split.json}; fi
fi
gym=${DATA_DIR:-data/skill_gym} SPLIT=${SPLIT:-${DATA_DIR:-}/split.json} SAMPLES=${SAMPLES:-all}
STAGE1_STEPS=${STAGE1_STEPS:-$TOTAL_STEPS} DENSE_STEPS=${DENSE_STEPS:-$(((TOTAL_STEPS + 2) / 3))}
RECOVERY=${RECOVERY:-category} CLUSTERS=${CLUSTERS:-auto}
TEXT_FLAGS=${TEXT_FLAGS:-} TRAIN_FLAGS=${TRAIN_FLAGS---predict_max_examples 100} ROUTER_FLAGS=${ROUTER_FLAGS:-}
FEW_SHOT_FLAGS=${FEW_SHOT_FLAGS:-} GRADIENT_FLAGS=${GRADIENT_FLAGS:-} texts=$TEXT_FLAGS
if [ -n "$builds_gym" ] || may_be_malformed "$gym"; then texts+=" --skip_malformed"; fi
PRECISION=${precision[1]:-} # empty for "no", or without a GPU
build_workers=${NUM_WORKERS:-} NUM_WORKERS=${NUM_WORKERS:-1}
unset TASKVECS STAGE1 STAGE1_FLAGS RESULTS_DIR DENSE_FLAGS EACH_SAMPLE UPCYCLE # set by each run
# Other scripts read these; their values are not in the settings of the study.
unset LEARNING_RATE ROUTER_LR TASK_MODEL_LR STAGE1_CHECKPOINT STAGE2_LEARNING_RATE STAGE2_NO_EVAL_UNTIL WEIGHTS
export STAGE2_EVAL_PERIOD CLUSTERS ZERO_SHOT_FLAGS=${ZERO_SHOT_FLAGS:-}
export MODEL DATA_DIR=${DATA_DIR:-} SPLIT LEARNING_RATE_LIST BSZ_LIST WARMUP_STEPS NUM_WORKERS INIT_EPS DIM
export ABLATE_FLAGS=${ABLATE_FLAGS---features all}
# What finished runs depend on, besides the files of model and gym.
KEPT="MODEL DATA_DIR SPLIT TOTAL_STEPS EVAL_PERIOD STAGE1_STEPS STAGE2_STEPS STAGE2_EVAL_PERIOD DENSE_STEPS
LEARNING_RATE_LIST BSZ_LIST SAMPLES FEW_SHOT_STEPS FEW_SHOT_EVAL_PERIOD WARMUP_STEPS DIM VECTOR_STEPS CLUSTERS
INIT_EPS ABLATE_FLAGS TEXT_FLAGS TRAIN_FLAGS ROUTER_FLAGS ZERO_SHOT_FLAGS FEW_SHOT_FLAGS VECTOR_FLAGS GRADIENT_FLAGS
PRECISION"

has() { [[ " $1 " == *" $2 "* ]]; } # LIST WORD

# tasks_in WORDS: prints the names of tasks of SPLIT
tasks_in() { "$PYTHON" -m routing_moe.cli.list_tasks --split "$SPLIT" "$@"; }

# check_tasks WORDS: adds the errors of tasks_in to the faults
check_tasks() {
    local errors
    errors=$(tasks_in "$@" 2>&1 >/dev/null) || faults+=("${errors//error: /}")
}

# ---- checks: all errors together

faults=() dry_run=
for word in "$@"; do
    if [ "$word" = --dry_run ]; then dry_run=yes; else faults+=("unknown argument $word (expected: --dry_run)"); fi
done
for name in $VARIANTS; do
    has "$ALL" "$name" || faults+=("VARIANTS: unknown variant $name (expected: $ALL)")
done
if [ "$STAGE1_STEPS" = "$TOTAL_STEPS" ]; then
    if has "$VARIANTS" two_stage && ! has "$VARIANTS" straight_through; then VARIANTS+=" straight_through"; fi
    if has "$VARIANTS" fisher_two_stage && ! has "$VARIANTS" fisher; then VARIANTS+=" fisher"; fi
fi
for name in $STARTS; do
    has "direct $ALL" "$name" || faults+=("STARTS: unknown start $name (expected: direct $ALL)")
    if has "$ALL" "$name" && ! has "$VARIANTS" "$name"; then faults+=("STARTS: $name is not one of VARIANTS"); fi
done
counts="JOBS NUM_WORKERS TOTAL_STEPS EVAL_PERIOD STAGE1_STEPS STAGE2_STEPS FEW_SHOT_STEPS FEW_SHOT_EVAL_PERIOD DIM"
counts+=" STAGE2_EVAL_PERIOD DENSE_STEPS VECTOR_STEPS"
for name in BSZ_LIST $counts; do
    for value in ${!name}; do
        [[ $value =~ ^[1-9][0-9]*$ ]] || faults+=("$name: $value is not a whole number of at least 1")
    done
done
for name in $counts INIT_EPS; do
    [[ ${!name} != *[[:space:]]* ]] || faults+=("$name: ${!name} is more than one value")
done
[[ $OUTPUT_DIR != *[][:*?\\$'\t\n']* ]] || faults+=("OUTPUT_DIR: $OUTPUT_DIR has one of the characters : * ? [ ] \\")
[[ $SAMPLES =~ ^(all|first|[0-9]+( [0-9]+)*)$ ]] || faults+=("SAMPLES: $SAMPLES is not all, first or seeds such as 100 13")
[[ $PRECISION =~ ^(|auto|bf16|fp16)$ ]] || faults+=("MIXED_PRECISION: $PRECISION is not no, auto, bf16 or fp16")
if [ "$PRECISION" = fp16 ] && reads_vectors "$VARIANTS" gradient; then
    faults+=("MIXED_PRECISION: fp16 is too small for the gradients of gradient_routing and gradient_upcycled; set bf16")
fi
[[ $CLUSTERS =~ ^(auto|[1-9][0-9]*)$ ]] || faults+=("CLUSTERS: $CLUSTERS is not auto or a whole number of at least 1")
if reads_vectors "$VARIANTS" gradient && [[ $TOTAL_STEPS$DENSE_STEPS =~ ^[0-9]+$ ]] && [ "$DENSE_STEPS" -ge "$TOTAL_STEPS" ]; then
    faults+=("DENSE_STEPS: $DENSE_STEPS is not below TOTAL_STEPS, $TOTAL_STEPS")
fi
for value in $SEEDS "$WARMUP_STEPS"; do
    [[ $value =~ ^[0-9]+$ ]] || faults+=("SEEDS, WARMUP_STEPS: $value is not a whole number")
done
for name in LEARNING_RATE_LIST INIT_EPS; do
    for value in ${!name}; do
        [[ $value =~ ^([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$ ]] || faults+=("$name: $value is not a number")
    done
done
for name in VARIANTS STARTS SEEDS LEARNING_RATE_LIST BSZ_LIST; do
    twice=$(tr ' ' '\n' <<<"${!name}" | sed '/^$/d' | sort | uniq -d | tr '\n' ' ')
    [ -z "$twice" ] || faults+=("$name: ${twice% } is given more than once")
    [[ ${!name} == *[![:space:]]* ]] || faults+=("$name: no value is given")
done
if [ -n "$DATA_DIR" ] && [ -z "$builds_gym" ] && [ ! -d "$DATA_DIR" ]; then
    faults+=("DATA_DIR: $DATA_DIR: no such folder")
elif [ -n "$DATA_DIR" ] && [ -z "$builds_gym" ] && [ -f "$SPLIT" ]; then
    check_tasks --gym "$DATA_DIR" all
fi
if [ ! -f "$SPLIT" ]; then
    faults+=("SPLIT: $({ tasks_in train 2>&1 || true; } | sed 's/^error: //')")
else
    check_tasks test
    check_tasks train
    n_train=$(tasks_in train 2>/dev/null | wc -l) || true # 0: a fault
    if reads_vectors "$VARIANTS" fisher && [[ $DIM =~ ^[0-9]+$ ]] && [ "$n_train" -gt 0 ] && [ "$DIM" -ge "$n_train" ]; then
        faults+=("DIM: $DIM; it must be less than the number of train tasks in $SPLIT, $((n_train))")
    fi
fi
# shellcheck disable=SC2086 # several names
settings_faults $KEPT
if [ ${#faults[@]} -gt 0 ]; then
    printf 'error: %s\n' "${faults[@]}" >&2
    exit 2
fi

# ---- the runs

DATA_DIR=$gym announce "model $MODEL, variants: $VARIANTS; seeds: $SEEDS" \
    "$TOTAL_STEPS steps; fine-tuning: $FEW_SHOT_STEPS, learning rates $LEARNING_RATE_LIST, batch sizes $BSZ_LIST" \
    "$OUTPUT_DIR"
PLAN=$OUTPUT_DIR/plan${dry_run:+-dry_run}.tsv
make_plan
gym_is_complete() { tasks_in --gym "$gym" all >/dev/null 2>&1; }

# make_model STEPS: makes MODEL, with so many steps of warm-up, if it is in ENGLISH_BART. Finished parts are kept.
make_model() {
    [ -z "${ENGLISH_BART:-}" ] ||
        OUTPUT_DIR=$ENGLISH_BART WARM_UP_STEPS=$1 EVAL_PERIOD='' bash example_scripts/english_bart.sh
}

if [ -n "$dry_run" ]; then
    make_model 0 >/dev/null
    sizes=$MODEL
    if [ -n "${ENGLISH_BART:-}" ]; then sizes=$ENGLISH_BART/bart; fi # MODEL may not be warmed up yet
    echo "settings of all runs:"
    for name in $KEPT NUM_WORKERS; do if [ -n "${!name}" ]; then echo "    $name=${!name}"; fi; done
    if [ -n "$builds_gym" ] && ! gym_is_complete; then
        echo "gym: $gym lacks tasks of $SPLIT; first it is built:"
        echo "    OUTPUT_DIR=$gym bash example_scripts/build_gym.sh --split $SPLIT"
    fi
    # shellcheck disable=SC2086 # several flags
    exec "$PYTHON" -m benchmarks.reproduction "$PLAN" --model "$sizes" --gym "$gym" \
        --split "$SPLIT" --longest "$(value_in --max_input_length $longest $TEXT_FLAGS)" \
        "$(value_in --max_output_length $longest_answer $TEXT_FLAGS)" \
        --num_beams "$(value_in --num_beams $beams $TRAIN_FLAGS)" ${precision[@]+"${precision[@]}"}
fi

# The runs read lines of a copy, which no other call changes.
copy=$(mktemp)
trap 'rm -f "$copy"' EXIT
cp "$PLAN" "$copy"
export PLAN=$copy PYTHON

# run_one LINE: runs a line of the plan unless it is finished, and writes its seconds to times.csv.
run_one() {
    local step run folder result needs work answers command start=$SECONDS ended=failed log file files
    IFS=$'\t' read -r step run folder result needs work answers command < <(sed -n "${1}p" "$PLAN")
    if [ -f "$folder/$result" ]; then
        echo "exists   $step $run"
        return
    fi
    IFS=: read -ra files <<<"$needs"
    for file in "${files[@]}"; do
        if [ "$file" != - ] && [ ! -f "$file" ]; then
            echo "skipped  $step $run, which needs $file"
            return
        fi
    done
    log=$OUTPUT_DIR/logs/$step-${run//\//-}.log
    # Ctrl-C also reaches the command, which logs what it has saved.
    trap 'echo "$step,$run,$((SECONDS - start)),interrupted" >>"$OUTPUT_DIR/times.csv"; exit 255' INT TERM
    echo "started  $step $run"
    if bash -c "$command" >>"$log" 2>&1; then
        ended=finished
    elif [ -f "$folder/$result" ]; then # a summary of the tasks that did not fail
        mv "$folder/$result" "$folder/incomplete-$result"
    fi
    echo "$step,$run,$((SECONDS - start)),$ended" >>"$OUTPUT_DIR/times.csv"
    printf '%-8s %s\n' "$ended" "$step $run after $((SECONDS - start)) s"
}
export -f run_one

if [ -n "$builds_gym" ] && ! gym_is_complete; then
    OUTPUT_DIR=$gym NUM_WORKERS=$build_workers bash example_scripts/build_gym.sh --split "$SPLIT" || [ $? -ne 130 ] || exit 130
    if ! tasks_in --gym "$gym" all >/dev/null; then
        echo "error: $gym/gym_report.csv says why these tasks could not be built; to run the study without them, set" \
            "SPLIT=$gym/split.json, which has those that were built" >&2
        exit 1
    fi
fi
make_model "${WARM_UP_STEPS:-0}"
# shellcheck disable=SC2086
save_settings $KEPT
[ -f "$OUTPUT_DIR/times.csv" ] || echo "step,run,seconds,ended" >"$OUTPUT_DIR/times.csv"
(DATA_DIR=$gym && make_embedded_gym) # once for all runs
if is_tiny; then
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
elif [ "$JOBS" -gt 1 ] && [ -z "${OMP_NUM_THREADS:-}" ]; then
    cores=$(getconf _NPROCESSORS_ONLN)
    export OMP_NUM_THREADS=$((cores > JOBS ? cores / JOBS : 1))
fi
trap stop_all INT TERM HUP
for step in $STEPS; do
    # shellcheck disable=SC2046 # numbers of lines
    run_jobs run_one -- $(awk -F'\t' -v step="$step" '$1 == step { print NR }' "$PLAN")
done
trap - INT TERM HUP

# ---- what is not finished, and the tables

status=0
while IFS=$'\t' read -r step run folder result _; do
    if [ "$step" != step ] && [ ! -f "$folder/$result" ]; then
        status=1 log=$OUTPUT_DIR/logs/$step-${run//\//-}.log
        if [ -f "$log" ]; then
            echo "not finished: $step $run; the end of $log:" >&2
            end_of_log "$log" >&2
        else
            echo "not finished: $step $run; it was skipped" >&2
        fi
    fi
done <"$PLAN"
awk -F, 'NR > 1 { s += $3 } END { printf "All runs, including earlier calls: %.1f minutes\n", s / 60 }' \
    "$OUTPUT_DIR/times.csv"

source example_scripts/reproduce_paper_tables.sh
exit $status
