# Sourced by reproduce_paper.sh, whose variables it reads: the list of all runs.
# shellcheck disable=SC2154 # the variables are set there

# add STEP RUN FOLDER RESULT NEEDS WORK ANSWERS COMMAND: a run in FOLDER that writes FOLDER/RESULT last, and reads the
# files NEEDS (separated by ":"; -: none). For the estimate of hours (-: none): WORK, kind of step, number, batch sizes
# and section of the split; ANSWERS, separated by ";", kind of routes, section/part/samples of files, times.
add() {
    local line
    printf -v line '%s\t' "${@:1:7}"
    printf -v line '%s%s' "$line" "$(printf '%q ' "${@:8}")"
    plan+=("${line% }")
}

# The zero-shot scores, the last file that a training writes. Scores of the train tasks are not needed, and on the
# 160 tasks these files have about a million rows.
scores=best/eval-test_tasks-test-performance.csv

# vectors_of VARIANT: prints the folder of the vectors that it is trained with.
vectors_of() { if [ "$1" = text ]; then echo "$OUTPUT_DIR/vectors/text"; else echo "$OUTPUT_DIR/vectors/fisher$DIM"; fi; }

# reads_vectors START METHOD: whether fine-tuning from START reads vectors of METHOD, text or fisher.
reads_vectors() { [ "$1" = "$2" ] || [ "$1" = "$2_two_stage" ]; }

add_vectors() { # text or fisher
    local folder=$OUTPUT_DIR/vectors/$1 each=$OUTPUT_DIR/vectors/$1_each fisher work=- work_each=- start
    local flags=("${vectors[@]}" ${malformed[@]+"${malformed[@]}"}) has_starts=
    for start in $STARTS; do if reads_vectors "$start" "$1"; then has_starts=yes; fi; done
    if [ "$1" = fisher ]; then
        flags+=(--total_steps "$VECTOR_STEPS")
        work=plain:$(((n_trains + n_tests) * VECTOR_STEPS)):8:train
        work_each=plain:$((n_tests * 5 * VECTOR_STEPS)):8:test
    fi
    add vectors "$1" "$folder" meta.json - $work - OUTPUT_DIR="$folder" \
        bash example_scripts/task_vectors.sh "$1" "${flags[@]}" --tasks train test
    # Few-shot fine-tuning reads the vector of each sample, computed from its own rows.
    [ -z "$has_starts" ] || add vectors "$1_each" "$each" meta.json - $work_each - OUTPUT_DIR="$each" \
        bash example_scripts/task_vectors.sh "$1" "${flags[@]}" --tasks test --samples each
    [ "$1" = fisher ] || return 0
    fisher=$(vectors_of fisher)
    add reduction "fisher$DIM" "$fisher" meta.json "$folder/meta.json" - - \
        TASKVECS="$folder" OUTPUT_DIR="$fisher" bash example_scripts/reduce_task_vectors.sh
    [ -n "$has_starts" ] || return 0
    add reduction_each "fisher${DIM}_each" "${fisher}_each" meta.json "$each/meta.json:$fisher/meta.json" - - \
        "$PYTHON" -m task.task_emb.reduce --taskvecs "$each" --like "$fisher" --output_dir "${fisher}_each"
}

add_training() { # VARIANT SEED
    local folder=$OUTPUT_DIR/runs/$1/seed$2 step=training needs=- steps=$TOTAL_STEPS kind=straight_through stage1=
    local answered=plain times=1 period=$EVAL_PERIOD until=0 evaluations answers call=() flags=(--resume --init_eps "$INIT_EPS")
    case $1 in
        multitask) kind=plain flags=(--resume) ;; # one expert
        average | softmax | gumbel) kind=dense answered=dense ;;
        random) kind=random answered=dense times=5 ;; # draws of routes
        task_random) kind=random ;;
        text | fisher) call=(TASKVECS="$(vectors_of "$1")") needs=$(vectors_of "$1")/meta.json ;;
        two_stage) stage1=$OUTPUT_DIR/runs/straight_through/seed$2 ;;
        fisher_two_stage) stage1=$OUTPUT_DIR/runs/fisher/seed$2 ;;
    esac
    if [ -n "$stage1" ]; then # run_two_stage.sh needs no --resume, and reads INIT_EPS from the environment
        step=stage2 needs=$stage1/$scores kind=dense steps=$STAGE2_STEPS flags=()
        # As in run_merged_fisher128freeze_1e-5.sh.
        if [ -n "$MODEL" ]; then period=$((steps < 20 ? 1 : steps / 20)); fi
        answered=dense until=$((steps / 4))
        call=(STAGE1="$stage1" STAGE2_STEPS="$STAGE2_STEPS")
    fi
    evaluations=$(((steps + period - 1) / period - (until > 0 ? (until - 1) / period : 0)))
    answers="$answered:train/dev/first:$((times * evaluations))"
    answers+=";$answered:test/dev/first:$times;$answered:test/test/first:$times"
    # shellcheck disable=SC2046 # a script and its flags
    add $step "$1/seed$2" "$folder" $scores "$needs" $kind:$steps:32:train "$answers" ${call[@]+"${call[@]}"} OUTPUT_DIR="$folder" \
        TOTAL_STEPS="$TOTAL_STEPS" EVAL_PERIOD="$EVAL_PERIOD" bash $(printf 'example_scripts/%s' "$(script_of "$1")") \
        --seed "$2" --predict_split test ${flags[@]+"${flags[@]}"} ${malformed[@]+"${malformed[@]}"}
}

add_few_shot() { # START SEED
    local run=$OUTPUT_DIR/runs/$1/seed$2 folder=$OUTPUT_DIR/few_shot/$1/seed$2 kind=plain needs end=_moe flags=()
    local answered times=1 evaluations=$(((FEW_SHOT_STEPS + FEW_SHOT_EVAL_PERIOD - 1) / FEW_SHOT_EVAL_PERIOD))
    needs=$run/$scores
    case $1 in
        direct) end= run=None needs=- ;;
        multitask) end= ;;
        # Soft routes keep all experts; others are converted into a plain BART.
        average) end=_moe_avg kind=dense ;;
        softmax | gumbel | two_stage) kind=dense ;;
        random) end=_moe_random kind=random times=5 ;;
        task_random) end=_moe_random2 ;;
        text | fisher*)
            flags=(--taskvecs "$(vectors_of "$1")_each") needs+=:$(vectors_of "$1")_each/meta.json
            if [ "$1" = fisher_two_stage ]; then kind=dense; fi
            ;;
    esac
    answered=$kind
    if [ $kind = random ]; then answered=dense; fi
    times=$((times * n_rates * $(wc -w <<<"$BSZ_LIST")))
    add few_shot "$1/seed$2" "$folder" summary.csv "$needs" \
        "$kind:$((n_tests * n_samples * n_rates * FEW_SHOT_STEPS)):${BSZ_LIST// /,}:test" \
        "$answered:test/dev/$SAMPLES:$((times * evaluations));$answered:test/test/$SAMPLES:$times" \
        RESULTS_DIR="$folder" TOTAL_STEPS="$FEW_SHOT_STEPS" EVAL_PERIOD="$FEW_SHOT_EVAL_PERIOD" \
        bash example_scripts/finetune_a_list_of_tasks$end.sh test "$run" "$1" --seed "$2" --samples "$SAMPLES" \
        ${flags[@]+"${flags[@]}"} ${malformed[@]+"${malformed[@]}"}
}

# make_plan: writes the list to the file PLAN.
make_plan() {
    local name seed run ablated=-
    if [ "$ABLATE_FLAGS" = "--features all" ]; then ablated=dense:train/dev/first:ablation; fi
    plan=() n_tests=$(tasks_in test | wc -l) n_trains=$(tasks_in train | wc -l)
    n_rates=$(wc -w <<<"$LEARNING_RATE_LIST")
    if [ "$SAMPLES" = all ]; then n_samples=5; else n_samples=1; fi
    if has "$VARIANTS" text; then add_vectors text; fi
    if has "$VARIANTS" fisher; then add_vectors fisher; fi
    for seed in $SEEDS; do
        for name in $VARIANTS; do add_training "$name" "$seed"; done
        for name in $STARTS; do add_few_shot "$name" "$seed"; done
        run=$OUTPUT_DIR/runs/two_stage/seed$seed
        ! has "$VARIANTS" two_stage || add figures "two_stage/seed$seed" "$run/analysis" report.html "$run/$scores" - \
            $ablated \
            bash example_scripts/understand.sh "$run"
    done
    mkdir -p "$OUTPUT_DIR/logs"
    printf 'step\trun\tfolder\tresult\tneeds\twork\tanswers\tcommand\n' >"$PLAN"
    printf '%s\n' "${plan[@]}" >>"$PLAN"
}
