# Sourced by compare_routings.sh and reproduce_paper.sh: runs jobs side by side, which Ctrl-C stops together.

# run_jobs FUNCTION [ARGUMENTS] -- JOB ...: calls FUNCTION ARGUMENTS JOB for every job, JOBS at a time, in a separate
# process group, so that all can be stopped. Functions must be exported; names of jobs have no spaces. Jobs divide the
# visible GPUs among themselves: each sees its own ones, or one that it shares if there are more jobs than GPUs.
run_jobs() {
    local call=() slots=() visible
    visible=$(visible_gpus | tr '\n' ' ')
    if [ -n "$visible" ]; then slots=(--process-slot-var=JOB_SLOT) call=(with_own_gpus); fi
    while [ "$1" != -- ]; do call+=("$1") && shift; done
    shift
    [ $# -gt 0 ] || return 0
    set -m
    JOBS=$JOBS VISIBLE_GPUS=$visible \
        xargs ${slots[@]+"${slots[@]}"} -P "$JOBS" -n 1 bash -c '"$@"' run_jobs "${call[@]}" <<<"$*" &
    set +m
    wait $! || true # failed runs are listed at the end
}

# with_own_gpus COMMAND: runs it with the GPUs number JOB_SLOT, JOB_SLOT + JOBS, ... of VISIBLE_GPUS, and says how many
# jobs share a GPU, so that each counts on its share of the memory.
with_own_gpus() {
    local visible n first i own=
    read -ra visible <<<"$VISIBLE_GPUS"
    n=${#visible[@]} first=$((JOB_SLOT % ${#visible[@]}))
    for ((i = first; i < n; i += JOBS)); do own+=${own:+,}${visible[i]}; done
    export CUDA_VISIBLE_DEVICES=$own ROUTING_MOE_WORKERS_OF_GPU=$((JOBS <= n ? 1 : (JOBS - first + n - 1) / n))
    "$@"
}
export -f with_own_gpus

# Ctrl-C: every run completes its step or evaluation and saves a checkpoint, which may take minutes; a second Ctrl-C
# stops them immediately.
stop_all() {
    trap 'kill -INT -- -$! 2>/dev/null' INT TERM HUP
    kill -INT -- -$! 2>/dev/null
    while kill -0 -- -$! 2>/dev/null; do sleep 0.2; done
    echo "interrupted; run the same command to continue" >&2
    exit 130
}

# settings_faults NAME ...: adds to faults the variables that differ from those of the runs in OUTPUT_DIR.
settings_faults() {
    local name kept
    [ -f "$OUTPUT_DIR/settings" ] || return 0
    for name in "$@"; do
        kept=$(sed -n "s/^$name=//p" "$OUTPUT_DIR/settings")
        [ "$kept" = "${!name}" ] ||
            faults+=("$name is '${!name}', but the runs in $OUTPUT_DIR have '$kept'; set another OUTPUT_DIR")
    done
}

# save_settings NAME ...: writes the file that settings_faults reads.
save_settings() {
    local name
    for name in "$@"; do echo "$name=${!name}"; done >"$OUTPUT_DIR/settings"
}

# end_of_log FILE: prints its last lines, without progress bars; nothing if there is no such file.
end_of_log() { [ ! -f "$1" ] || tail -n 5 "$1" | sed $'s/.*\r//; s/^/    /'; }
