# Sourced by reproduce_paper.sh, whose variables it reads: the list of all runs.
# shellcheck disable=SC2154 # the variables are set there

# add STEP RUN FOLDER RESULT NEEDS WORK ANSWERS COMMAND: a run in FOLDER that writes FOLDER/RESULT last, and reads the
# files NEEDS (separated by ":"; -: none). For the estimate of hours (-: none), both separated by ";": WORK, kind of
# step, number, batch sizes and section of the split; ANSWERS, kind of routes, section/part/samples of files (and the
# most rows of each), times.
add() {
    local line
    printf -v line '%s\t' "${@:1:7}"
    printf -v line '%s%s' "$line" "$(printf '%q ' "${@:8}")"
    plan+=("${line% }")
}

# The last files that a training and a zero-shot prediction write.
scores=best/eval-test-performance.csv zero_shot=best/eval-test_tasks-test-performance.csv

# vectors_of VARIANT: prints the folder of the vectors that it is trained with.
vectors_of() { if [ "$1" = text ]; then echo "$OUTPUT_DIR/vectors/text"; else echo "$OUTPUT_DIR/vectors/fisher$DIM"; fi; }

# reads_vectors NAMES METHOD: whether any of these variants or starts reads vectors of METHOD: text, fisher or gradient.
reads_vectors() { [[ " $1" == *" $2"* ]]; }

# limit_in FLAGS: prints "/N" if flags limit the rows of a scored file to N.
# shellcheck disable=SC2086 # several flags
limit_in() { value_in --predict_max_examples "" $1 | sed 's,^.,/&,'; }

add_vectors() { # text or fisher
    local folder=$OUTPUT_DIR/vectors/$1 each=$OUTPUT_DIR/vectors/$1_each fisher work=- work_each=- has_starts=
    # shellcheck disable=SC2206 # several flags
    local flags=($VECTOR_FLAGS $texts)
    if reads_vectors "$STARTS" "$1"; then has_starts=yes; fi
    if [ "$1" = fisher ]; then
        flags+=(--total_steps "$VECTOR_STEPS" ${precision[@]+"${precision[@]}"})
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

# add_run STEP RUN NEEDS WORK ANSWERED DRAWS EVALUATIONS COMMAND: a training, and the zero-shot prediction of its run.
add_run() {
    local folder=$OUTPUT_DIR/runs/$2 dev=$5:train/dev/first limit
    limit=$(limit_in "$TRAIN_FLAGS")
    add "$1" "$2" "$folder" $scores "$3" "$4" "$dev:$(($6 * $7));$dev$limit:$6;$5:train/test/first$limit:$6" \
        OUTPUT_DIR="$folder" "${@:8}"
    limit=$(limit_in "$ZERO_SHOT_FLAGS")
    # shellcheck disable=SC2086 # several flags
    add zero_shot "$2" "$folder" $zero_shot "$folder/$scores" - "$5:test/dev/first$limit:$6;$5:test/test/first$limit:$6" \
        "$PYTHON" -m routing_moe.cli.train --do_predict --predict_split test --output_dir "$folder" \
        ${precision[@]+"${precision[@]}"} $ZERO_SHOT_FLAGS
}

add_training() { # VARIANT SEED
    local kind=random answered=plain draws=1 needs=- work='' steps=$TOTAL_STEPS router='' call=() own
    local flags="--seed $2 $texts $TRAIN_FLAGS" experts="--init_eps $INIT_EPS"
    case $1 in
        multitask) kind=plain experts='' ;; # one expert
        average) kind=dense answered=dense ;;
        random) answered=dense draws=5 ;; # of routes
        softmax | gumbel) kind=dense answered=dense router=$ROUTER_FLAGS ;;
        task_random | ontology | fisher_clusters) ;;
        gradient_routing | gradient_upcycled)
            # Gradients at six checkpoints, of about 40 rows of each sample, take as long as steps of 32 rows.
            steps=$((TOTAL_STEPS - DENSE_STEPS))
            work="plain:$((DENSE_STEPS + (n_trains + 6 * n_tests) * 6 * 40 / 32)):32:train;"
            call=(DENSE_STEPS="$DENSE_STEPS" DENSE_FLAGS="$flags" VECTOR_FLAGS="$texts $GRADIENT_FLAGS ${precision[*]-} --tasks train test"
                EACH_SAMPLE=yes)
            if [ "$1" = gradient_upcycled ]; then call+=(UPCYCLE=yes); fi
            ;;
        *) kind=straight_through router=$ROUTER_FLAGS ;;
    esac
    if reads_vectors "$1" text || reads_vectors "$1" fisher; then
        call=(TASKVECS="$(vectors_of "$1")") needs=$(vectors_of "$1")/meta.json
    fi
    # shellcheck disable=SC2206,SC2207 # a script and its flags
    own=($(script_of "$1") $flags --resume $experts $router)
    add_run training "$1/seed$2" "$needs" "$work$kind:$steps:32:train" $answered $draws \
        $(((steps + EVAL_PERIOD - 1) / EVAL_PERIOD)) ${call[@]+"${call[@]}"} TOTAL_STEPS="$steps" \
        EVAL_PERIOD="$EVAL_PERIOD" bash "example_scripts/${own[0]}" "${own[@]:1}"
}

add_two_stages() { # VARIANT SEED FIRST
    local step=stage2 stage1=$OUTPUT_DIR/runs/$3/seed$2 needs work=dense:$STAGE2_STEPS:32:train
    local flags="--seed $2 $texts $TRAIN_FLAGS" until=$((STAGE2_STEPS / 4)) period=$STAGE2_EVAL_PERIOD call=()
    if [ "$STAGE1_STEPS" = "$TOTAL_STEPS" ]; then
        needs=$stage1/$scores call=(STAGE1="$stage1")
    else
        step=training needs=- work="straight_through:$STAGE1_STEPS:32:train;$work"
        call=(STAGE1_FLAGS="$flags --init_eps $INIT_EPS $ROUTER_FLAGS")
        if [ "$3" = fisher ]; then
            needs=$(vectors_of fisher)/meta.json
            call=(TASKVECS="$(vectors_of fisher)" "${call[0]} --freeze_task_model")
        fi
    fi
    # shellcheck disable=SC2086 # several flags; run_two_stage.sh needs no --resume, and reads INIT_EPS
    add_run $step "$1/seed$2" "$needs" "$work" dense 1 \
        $(((STAGE2_STEPS + period - 1) / period - (until > 0 ? (until - 1) / period : 0))) \
        "${call[@]}" STAGE2_STEPS="$STAGE2_STEPS" TOTAL_STEPS="$STAGE1_STEPS" EVAL_PERIOD="$EVAL_PERIOD" \
        bash example_scripts/run_two_stage.sh $flags
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
        gradient_routing | gradient_upcycled) flags=(--taskvecs "$run/vectors_each") ;;
        text | fisher*)
            flags=(--taskvecs "$(vectors_of "$1")_each") needs+=:$(vectors_of "$1")_each/meta.json
            if [ "$1" = fisher_two_stage ]; then kind=dense; fi
            ;;
    esac
    answered=$kind
    if [ $kind = random ]; then answered=dense; fi
    times=$((times * n_rates * $(wc -w <<<"$BSZ_LIST")))
    # shellcheck disable=SC2086 # several flags
    add few_shot "$1/seed$2" "$folder" summary.csv "$needs" \
        "$kind:$((n_tests * n_samples * n_rates * FEW_SHOT_STEPS)):${BSZ_LIST// /,}:test" \
        "$answered:test/dev/${SAMPLES// /,}:$((times * evaluations));$answered:test/test/${SAMPLES// /,}$(limit_in "$FEW_SHOT_FLAGS"):$times" \
        RESULTS_DIR="$folder" TOTAL_STEPS="$FEW_SHOT_STEPS" EVAL_PERIOD="$FEW_SHOT_EVAL_PERIOD" \
        bash example_scripts/finetune_a_list_of_tasks$end.sh test "$run" "$1" --seed "$2" --samples $SAMPLES \
        $texts $FEW_SHOT_FLAGS ${flags[@]+"${flags[@]}"}
}

# make_plan: writes the list to the file PLAN.
make_plan() {
    local name seed run ablated=-
    if [ "$ABLATE_FLAGS" = "--features all" ]; then ablated=dense:train/dev/first:ablation; fi
    plan=() n_tests=$(tasks_in test | wc -l) n_trains=$(tasks_in train | wc -l)
    n_rates=$(wc -w <<<"$LEARNING_RATE_LIST")
    if [ "$SAMPLES" = all ]; then n_samples=5; else n_samples=$(wc -w <<<"$SAMPLES"); fi
    if reads_vectors "$VARIANTS" text; then add_vectors text; fi
    if reads_vectors "$VARIANTS" fisher; then add_vectors fisher; fi
    for seed in $SEEDS; do
        for name in $VARIANTS; do
            case $name in
                two_stage) add_two_stages "$name" "$seed" straight_through ;;
                fisher_two_stage) add_two_stages "$name" "$seed" fisher ;;
                *) add_training "$name" "$seed" ;;
            esac
        done
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
