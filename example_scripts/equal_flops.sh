# Sourced by compare_routings.sh and, for saved_steps, by compare_conflict.sh. With MATCH=flops, computes the number of
# steps of a variant that has the training FLOPs of a run of MATCH_TO.
#
# equal_flops VARIANT SEED FLAGS: exports TOTAL_STEPS for the script of a variant. For two_stage, it trains stage 1 in
# the run folder with half of the FLOPs, merges it, and exports OWN_STAGE1 and STAGE2_STEPS. The annealing rate per
# step does not depend on the number of steps, except in stage 2.

# saved_steps MEMO COMMAND: prints the number of steps in the file MEMO. If there is none, it is the last line that
# COMMAND prints, which is saved there.
saved_steps() {
    local memo=$1 steps
    shift
    if [ ! -s "$memo" ]; then
        steps=$("$@" | tail -n 1)
        [[ $steps =~ ^[1-9][0-9]*$ ]] || return 1
        mkdir -p "$(dirname "$memo")"
        echo "$steps" >"$memo"
    fi
    cat "$memo"
}

# steps_for_flops MEMO FOLDER SCRIPT FLAGS: prints the number of steps, and saves it in the file MEMO.
steps_for_flops() {
    local memo=$1 folder=$2 script=$3
    shift 3
    OUTPUT_DIR=$folder saved_steps "$memo" bash "example_scripts/$script" "$@" --equal_flops "$REFERENCE"
}

equal_flops() {
    local variant=$1 seed=$2 folder=$OUTPUT_DIR/$1/seed$2 steps
    shift 2
    REFERENCE=$OUTPUT_DIR/$MATCH_TO/seed$seed
    if [ "$variant" = "$MATCH_TO" ]; then return 0; fi
    set -- --seed "$seed" "$@"
    if [ "$variant" != two_stage ]; then
        # shellcheck disable=SC2046 # a script and its flags
        TOTAL_STEPS=$(steps_for_flops "$folder.steps_of_$MATCH_TO" "$folder" $(script_of "$variant") "$@") || return 1
        export TOTAL_STEPS
        return 0
    fi
    export OWN_STAGE1=$folder/stage1
    # shellcheck disable=SC2086 # several flags
    steps=$(steps_for_flops "$folder.steps_of_$MATCH_TO" "$OWN_STAGE1" train_routing_bart.sh --init_eps "$INIT_EPS" $MIXTURE_FLAGS "$@") || return 1
    if ! finished "$variant/seed$seed/stage1"; then
        # shellcheck disable=SC2086
        TOTAL_STEPS=$(((steps + 1) / 2)) OUTPUT_DIR=$OWN_STAGE1 \
            bash example_scripts/train_routing_bart.sh --init_eps "$INIT_EPS" $MIXTURE_FLAGS "$@" --resume || return 1
    fi
    STAGE1=$OWN_STAGE1 OUTPUT_DIR=$folder bash example_scripts/build_a_checkpoint2.sh || return 1
    STAGE2_STEPS=$(steps_for_flops "$folder.stage2_steps_of_$MATCH_TO" "$folder" run_merged_fisher128freeze_1e-5.sh "$@") || return 1
    export STAGE2_STEPS
}
export -f saved_steps steps_for_flops equal_flops
