# shellcheck shell=bash disable=SC2034 # variables of the scripts
# Sourced by the other scripts: strict mode, the top folder (where relative paths start), `routing-moe`, shared parts.
#   --small     as the first word of a script: a generated gym and a tiny BART, hyperparameters for them (SMALL_...)
#   --dry_run   as the first word: only print the commands
#   DATA_DIR, SPLIT, TASKVECS, OUTPUT_DIR   variables: --train_dir, --custom_tasks_splits, --taskvecs, --output_dir
#   PROCESSES   variable: processes of each training, one per GPU (1)
#   PYTHON      variable: the interpreter, if there is no .venv (python3)
#   JOBS        variable of scripts of many runs: runs at the same time (1)
#   RAY_ADDRESS variable of scripts of many runs: a Ray cluster that runs them (docs/hardware.md)
# Flags of SMALL_... come after the published ones and before yours; the last one wins.

set -euo pipefail
fail() { echo "error: $*" >&2 && exit 2; }
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || fail "bash $BASH_VERSION is too old; 4.4 or newer is needed"
shopt -s lastpipe # the last command of a pipeline may end the script
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -x .venv/bin/python ]; then PYTHON=$PWD/.venv/bin/python; else PYTHON=${PYTHON:-python3}; fi
routing-moe() { # also without installation
    if [ -n "${DRY_RUN:-}" ] && [[ $1 != list-tasks && $1 != parallel ]]; then
        echo "routing-moe$(printf ' %q' "$@")"
    elif [[ $1 = train || $1 = transfer ]] && [ "${PROCESSES:-1}" != 1 ]; then
        "$PYTHON" -m accelerate.commands.launch --multi_gpu --num_processes "$PROCESSES" --num_machines 1 \
            --mixed_precision no --dynamo_backend no -m "routing_moe.cli.$1" --mixed_precision auto "${@:2}"
    else
        "$PYTHON" -m routing_moe.cli.entry "$@"
    fi
}
export PYTHON && export -f routing-moe # for the commands of `in_parallel`

SMALL="" DRY_RUN="" FAILED=0
SCORES=best/eval-test-performance.csv UNSEEN=best/eval-test_tasks-test-performance.csv # the last files of runs
while [[ ${1:-} = --small || ${1:-} = --dry_run ]]; do
    if [ "$1" = --small ]; then SMALL=$1; else DRY_RUN=$1; fi
    shift
done
[[ " $* " != *" --small "* && " $* " != *" --dry_run "* ]] || fail "--small and --dry_run must be the first words"
SMALL_MODEL=() SMALL_TRAIN=() SMALL_FINETUNE=() SHORT=(--max_input_length 16 --max_output_length 8 --num_beams 1)
if [ -n "$SMALL" ]; then
    unset SPLIT TASKVECS
    DATA_DIR=data/small_gym SMALL_MODEL=(--model data/small_bart)
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # with such small matrices, a second thread barely helps
    if [[ ! -f data/small_bart/config.json || ! -f $DATA_DIR/gym.json ]]; then # tasks that conflict on half of the rows
        DRY_RUN="" routing-moe conflict-gym --conflict 0.5 --output_dir $DATA_DIR >&2
        DRY_RUN="" routing-moe conflict-gym bart --gym $DATA_DIR --output_dir data/small_bart >&2
    fi
    SMALL_TRAIN=("${SMALL_MODEL[@]}" "${SHORT[@]}" --train_batch_size 64 --total_steps 1250 --eval_period 625
        --learning_rate 12e-3 --max_grad_norm 100 --taskvecs_dim 16
        --router_lr 1e-2 --anneal_rate 0.00184 --minimum_tau 0.3)
    SMALL_FINETUNE=("${SMALL_MODEL[@]}" "${SHORT[@]}"
        --learning_rate_list 3e-3 1e-2 --bsz_list 4 8 --total_steps 100 --eval_period 25)
fi
or_small() { if [ -n "$SMALL" ]; then echo "$2"; else echo "$1"; fi; }

# ---- flags and variables of a script

take() { # --flag NAME DEFAULT: sets the variable NAME to the last value of a flag in ARGS, which loses it
    local flag=$1 name=$2 value=$3 kept=()
    set -- "${ARGS[@]}"
    while [ $# -gt 0 ]; do
        case $1 in
            "$flag") [ $# -gt 1 ] || fail "$flag: expected one argument" && value=$2 && shift ;;
            "$flag="*) value=${1#*=} ;;
            *) kept+=("$1") ;;
        esac
        shift
    done
    ARGS=("${kept[@]}")
    [[ $name != *STEPS* || $value =~ ^[1-9][0-9]*$ ]] || fail "$flag is '$value'; it must be a whole number above 0"
    printf -v "$name" %s "$value"
}

take_runs() { # FOLDER SEEDS: sets OUT and SEEDS, with these defaults, from --output_dir and --seed, or from variables
    take --output_dir OUT "${OUTPUT_DIR:-$1}"
    take --seed SEEDS "${SEEDS:-$2}"
}

take_data() { # sets DATA, the flags of the gym, from --train_dir and --custom_tasks_splits in ARGS, or from variables
    take --train_dir DATA_DIR "${DATA_DIR:-}"
    take --custom_tasks_splits SPLIT "${SPLIT:-}"
    [ -n "$DATA_DIR" ] || fail "no gym: give --train_dir FOLDER or the variable DATA_DIR, or --small as the first word"
    DATA=(--train_dir "$DATA_DIR" ${SPLIT:+--custom_tasks_splits "$SPLIT"}) SKIP=() # SKIP: for commands without ARGS
    [[ " ${ARGS[*]} " != *" --skip_malformed "* ]] || SKIP=(--skip_malformed)
}

# ---- many runs:  { run RESULT COMMAND ...; run RESULT COMMAND ...; } | in_parallel;  exit "$FAILED"

known() { # TABLE NAME ...: whether all are keys of the table
    local -n table=$1
    for name in "${@:2}"; do [ -n "${table[$name]:-}" ] || fail "there is no variant $name; there are ${!table[*]}"; done
}

run() { printf '%s\t%s\n' "$1" "$(printf '%q ' "${@:2}")"; } # RESULT, which the command writes last; COMMAND ...

unseen() { # RUN FLAGS ...: its scores on unseen tasks
    run "$1/$UNSEEN" routing-moe train --do_predict --predict_split test --output_dir "$1" "${@:2}"
}

in_parallel() { # JOBS at a time. A run that fails does not stop the others
    [[ $OUT != *[[:space:]]* ]] || fail "OUTPUT_DIR: '$OUT' has a space, which flags of variants cannot have"
    local cluster=(${RAY_ADDRESS:+--ray "$RAY_ADDRESS"})
    (unset TASKVECS PROCESSES && routing-moe parallel --jobs "${JOBS:-1}" "${cluster[@]}" $DRY_RUN) || FAILED=$?
    [ "$FAILED" -le 1 ] || exit "$FAILED"
}

# ---- make_environment [EXTRAS]: creates .venv and installs the project, if requirements have changed

find_python() { # sets python
    for python in ${PYTHON:-} python3.13 python3.12 python3.11 python3 python; do
        "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
    done
    fail "no Python 3.11 or newer with venv and pip was found"
}

make_environment() {
    local extras=${1:-} wanted stamp python
    wanted=$(cat requirements.txt setup.py | cksum)
    stamp=.venv/installed${extras:+-$extras}
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "Installing Python packages into .venv (once): torch, transformers and what they need, 1 to 6 GB ..."
        if [ ! -x .venv/bin/python ]; then find_python && "$python" -m venv .venv; fi
        .venv/bin/python -m pip install --disable-pip-version-check -e ".${extras:+[$extras]}"
        echo "$wanted" >"$stamp"
    fi
    PYTHON=$PWD/.venv/bin/python
}
