# Sourced by the other scripts: changes to the top folder of the repository and selects the Python interpreter.
#
# PYTHON is that of .venv if it exists (quickstart.sh and tests/run_tests.sh create it), otherwise the variable PYTHON,
# otherwise python3. `make_environment EXTRAS` creates .venv and installs the project if requirements have changed.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=${PYTHON:-python3}; fi

# The GPUs of this machine, one a line, as `nvidia-smi -L` prints them: "GPU 0: ...". None if ACCELERATE_USE_CPU has one
# of the values that accelerate takes for true. A driver that hangs is not waited for.
gpus=
if ! [[ $(tr '[:upper:]' '[:lower:]' <<<"${ACCELERATE_USE_CPU:-}") =~ ^(1|true|yes|on|y|t)$ ]]; then
    limit=()
    if command -v timeout >/dev/null; then limit=(timeout 20); fi
    gpus=$(${limit[@]+"${limit[@]}"} nvidia-smi -L 2>/dev/null | grep '^GPU ') || gpus=
fi

# visible_gpus: prints the numbers (or names) of the GPUs that CUDA_VISIBLE_DEVICES leaves, one a line.
visible_gpus() {
    if [ -n "$gpus" ] && [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        tr ', ' '\n\n' <<<"$CUDA_VISIBLE_DEVICES" | sed '/^-/,$d; /^$/d'
    else
        sed -n 's/^GPU \([0-9]*\):.*/\1/p' <<<"$gpus"
    fi
}

# Flags of trainings: matrix products in bf16 on a GPU that supports it, otherwise as without flags. MIXED_PRECISION in
# the environment sets another precision: no (TF32 on a GPU), bf16 or fp16.
precision=()
if [ -z "${MIXED_PRECISION:-}" ] && [ -n "$(visible_gpus)" ]; then MIXED_PRECISION=auto; fi
[ "${MIXED_PRECISION:-no}" = no ] || precision=(--mixed_precision "$MIXED_PRECISION")

# device: prints what commands run on, such as "2 GPUs (NVIDIA A100)".
device() {
    local visible name
    # shellcheck disable=SC2207 # numbers
    visible=($(visible_gpus))
    if [ ${#visible[@]} = 0 ]; then
        echo CPU
    else
        name=$(awk -v id="${visible[0]}" '$2 == id ":" || index($0, "(UUID: " id)' <<<"$gpus" |
            sed -n '1s/^GPU [0-9]*: \(.*\) (UUID.*/ (\1)/p')
        echo "${#visible[@]} GPU$([ ${#visible[@]} = 1 ] || echo s)$name"
    fi
}

# announce WHAT SETTINGS FOLDER [FLAGS]: what a script is about to do, before Python starts.
announce() {
    echo "$1; gym $DATA_DIR, split ${SPLIT:-$DATA_DIR/split.json}"
    echo "$2; on $(device)${MIXED_PRECISION:+, precision $MIXED_PRECISION}; output in $3${4:+; flags: $4}"
}

# value_in FLAG DEFAULT ARGUMENTS: prints the value of the last FLAG among the arguments; of a list all words.
value_in() {
    local flag=$1 value=$2 inside='' word
    shift 2
    for word in "$@"; do
        case $word in
            "$flag") value='' inside=yes ;;
            "$flag="*) value=${word#*=} inside= ;;
            --*) inside= ;;
            *) [ -z "$inside" ] || value+=${value:+ }$word ;;
        esac
    done
    echo "$value"
}

# take_flags "NAME=--flag ..." ARGUMENTS: sets each variable to the value of its flag, if this is among the arguments.
take_flags() {
    local pair value
    for pair in $1; do
        value=$(value_in "${pair#*=}" '' "${@:2}")
        [ -z "$value" ] || printf -v "${pair%%=*}" %s "$value"
    done
}

# refuse_flags_of_all_stages ARGUMENTS: exits with an error if flags for the last stage have one that belongs to all.
refuse_flags_of_all_stages() {
    local flag name
    for flag in "$@"; do
        case ${flag%%=*} in
            --model) name=MODEL ;;
            --train_dir) name=DATA_DIR ;;
            --custom_tasks_splits) name=SPLIT ;;
            --output_dir) name=OUTPUT_DIR ;;
            *) continue ;;
        esac
        echo "error: $flag: flags reach only a part of the trainings; set $name, which all of them read" >&2
        exit 2
    done
}

# ---- the model: hyperparameters go with it

TINY_BART=task/skill_gym/tiny_bart CONFLICT_BARTS=data/conflict_gym_bart

# has_data: whether data or task vectors of the user's own are given.
has_data() { [ -n "${DATA_DIR:-}${SPLIT:-}${TASKVECS:-}" ]; }

# choose_model [CHECKPOINT]: sets MODEL, unless it is given: to the base of a checkpoint; else, if EMBEDDED_GYM is
# conflict, to the BART of this gym; else to the embedded tiny BART if neither DATA_DIR, SPLIT nor TASKVECS is given,
# otherwise to bart-base, as in the published scripts.
# Also sets `embedded`: the gym of an embedded BART (skill, conflict), empty for other models; embedded_gym, the default
# of DATA_DIR; and for an embedded BART the flags that fit it, lengths and one_beam, and its width.
choose_model() {
    if ! [[ ${EMBEDDED_GYM:-skill} =~ ^(skill|conflict)$ ]]; then
        echo "error: EMBEDDED_GYM is '$EMBEDDED_GYM'; it must be skill or conflict" >&2
        exit 2
    fi
    if [ -n "${MODEL:-}" ]; then
        :
    elif [ -n "${1:-}" ]; then
        MODEL=$(base_of "$1")
    elif [ "${EMBEDDED_GYM:-}" = conflict ]; then
        MODEL=$CONFLICT_BARTS/width16
    elif has_data; then
        MODEL=facebook/bart-base
    else
        MODEL=$TINY_BART
    fi
    embedded='' embedded_gym=data/skill_gym lengths=() one_beam=() width=''
    if [ "${EMBEDDED_GYM:-}" = conflict ] || [[ $MODEL == *"$CONFLICT_BARTS"/* ]]; then
        embedded=conflict embedded_gym=data/conflict_gym width=16
        lengths=(--max_input_length 32 --max_output_length 8)
    elif is_tiny; then
        embedded=skill width=64
        lengths=(--max_input_length 128 --max_output_length 32)
    else
        return 0
    fi
    one_beam=(--num_beams 1)
    # With such small matrices, a second thread barely helps, and slows down training on a busy machine.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
}

# is_tiny: whether MODEL is the embedded tiny BART, by any path.
is_tiny() { [ "${MODEL:-}" -ef $TINY_BART ]; }

# base_of PLACE: prints the plain BART of a run, a checkpoint, or the folder of a file of weights: the recorded one;
# where none is, as for runs of the published code, an embedded BART, bart-large or bart-base, by its sizes.
base_of() {
    local place=$1 file='' sizes='' bart
    if [ -d "$place" ]; then
        # run.json names a model that the run does not start from, unless it started from plain BART.
        for file in "$place" "$place/init" "$place/.." "$place/../init"; do
            if grep -q '"initialize_from_vanilla": true' "$file/run.json" 2>/dev/null; then
                file+=/run.json
            else
                file+=/merge.json
            fi
            sed -n 's/^ *"model": "\(.*\)",*$/\1/p' "$file" 2>/dev/null | grep -m 1 . && return
        done
        for file in "$place/config.json" "$place"/*/config.json; do # all checkpoints of a run have the same sizes
            [ ! -f "$file" ] || break
        done
    elif [ -f "$place" ]; then
        file=$(dirname "$place")/config.json
    fi
    [ ! -f "$file" ] || sizes=$(sizes_in "$file")
    for bart in $TINY_BART $CONFLICT_BARTS/width*; do
        [ -z "$sizes" ] || [ "$sizes" != "$(sizes_in "$bart/config.json")" ] || { echo "$bart" && return; }
    done
    if [[ $sizes == *'"d_model":1024'* ]]; then echo facebook/bart-large; else echo facebook/bart-base; fi
}

sizes_in() {
    grep -oE '"(vocab_size|d_model|(en|de)coder_(layers|ffn_dim))": *[0-9]+' "$1" 2>/dev/null | tr -d ' ' | sort
}

# ---- environment, checks, embedded gyms

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.13 python3.12 python3.11 python3 python; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.11 or newer with venv and pip was found" >&2
    return 1
}

make_environment() {
    local extras=${1:-} wanted stamp
    wanted=$(cat requirements.txt setup.py | cksum)
    stamp=.venv/installed${extras:+-$extras}
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "Installing into .venv (once) ..."
        [ -x .venv/bin/python ] || "$(find_python)" -m venv .venv
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".${extras:+[$extras]}"
        echo "$wanted" >"$stamp"
    fi
    PYTHON=.venv/bin/python
}

# may_be_malformed GYM: whether build_gym.sh built it. Some published files have lines that are broken by line feeds in
# their texts.
may_be_malformed() { [ -f "$1/gym_report.csv" ]; }

# whole_numbers NAME ...: exits with an error unless each of these variables is a whole number of at least 1.
whole_numbers() {
    local name
    for name in "$@"; do
        if ! [[ ${!name} =~ ^[1-9][0-9]*$ ]]; then
            echo "error: $name is '${!name}'; it must be a whole number of at least 1" >&2
            exit 2
        fi
    done
}

# yes_or_no NAME ...: exits with an error unless each of these variables is yes, no or not set.
yes_or_no() {
    local name
    for name in "$@"; do
        if ! [[ ${!name:-no} =~ ^(yes|no)$ ]]; then
            echo "error: $name is '${!name}'; it must be yes or no" >&2
            exit 2
        fi
    done
}

# make_embedded_gym: after choose_model, writes the gym of the embedded BART, and any BARTs of it that are trained.
make_embedded_gym() {
    if [ "$embedded" = conflict ]; then
        make_conflict_gym
    elif [ "$DATA_DIR" = data/skill_gym ]; then
        make_skill_gym
    fi
}

# Writes the embedded gym to data/skill_gym, once per version of its generator.
make_skill_gym() {
    local wanted
    wanted=$(cat task/skill_gym/*.py | cksum)
    if [ ! -f data/skill_gym/split.json ] || [ "$(cat data/skill_gym/generator 2>/dev/null)" != "$wanted" ]; then
        if [ -f data/skill_gym/generator ]; then rm -rf data/skill_gym; fi # of another version
        "$PYTHON" -m task.skill_gym.generate --output_dir data/skill_gym
        echo "$wanted" >data/skill_gym/generator
    fi
}

# Writes the conflict gym to data/conflict_gym, and untrained BARTs of width 16 and 32 for it to
# data/conflict_gym_bart/width<W>, once per version of their generator.
make_conflict_gym() {
    local wanted width models=$CONFLICT_BARTS
    wanted=$(cat task/conflict_gym/*.py | cksum)
    if [ ! -f data/conflict_gym/split.json ] || [ "$(cat $models/generator 2>/dev/null)" != "$wanted" ]; then
        if [ -f $models/generator ]; then rm -rf data/conflict_gym; fi # of another version
        "$PYTHON" -m task.conflict_gym.generate --output_dir data/conflict_gym
        rm -rf $models
        mkdir -p $models
        for width in 16 32; do
            "$PYTHON" -m task.conflict_gym.bart --gym data/conflict_gym --width $width --output_dir $models/width$width
        done
        echo "$wanted" >$models/generator
    fi
}
