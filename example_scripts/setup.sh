# Sourced by the other scripts: changes to the top folder of the repository and selects the Python interpreter.
#
# PYTHON is that of .venv if it exists (quickstart.sh and tests/run_tests.sh create it), otherwise the variable PYTHON,
# otherwise python3. `make_environment EXTRAS` creates .venv and installs the project if requirements have changed.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=${PYTHON:-python3}; fi

# The GPUs of this machine, one a line, as `nvidia-smi -L` prints them.
gpus=$(nvidia-smi -L 2>/dev/null) || gpus=

# Flags of trainings: matrix products in bf16 on a GPU that supports it, otherwise as without flags. MIXED_PRECISION in
# the environment sets another precision: no (TF32 on a GPU), bf16 or fp16.
precision=()
if [ -z "${MIXED_PRECISION:-}" ] && [ -n "$gpus" ]; then MIXED_PRECISION=auto; fi
[ "${MIXED_PRECISION:-no}" = no ] || precision=(--mixed_precision "$MIXED_PRECISION")

# visible_gpus: prints the numbers (or names) of the GPUs that CUDA_VISIBLE_DEVICES leaves, one a line.
visible_gpus() {
    if [ -n "$gpus" ] && [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        tr ', ' '\n\n' <<<"$CUDA_VISIBLE_DEVICES" | sed '/^-/,$d; /^$/d'
    else
        sed -n 's/^GPU \([0-9]*\):.*/\1/p' <<<"$gpus"
    fi
}

# device: prints what commands run on, such as "2 GPUs (NVIDIA A100)".
device() {
    local visible name
    # shellcheck disable=SC2207 # numbers
    visible=($(visible_gpus))
    if [ ${#visible[@]} = 0 ] || [[ ${ACCELERATE_USE_CPU:-} =~ ^(1|true|True|yes)$ ]]; then
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

# ---- the model: hyperparameters go with it

TINY_BART=task/skill_gym/tiny_bart

# value_in FLAG DEFAULT FLAGS: prints the value of the last FLAG in FLAGS.
value_in() { if [[ " $3" =~ .*\ $1[\ =]([^ ]+) ]]; then echo "${BASH_REMATCH[1]}"; else echo "$2"; fi; }

# has_data: whether data or task vectors of the user's own are given.
has_data() { [ -n "${DATA_DIR:-}${SPLIT:-}${TASKVECS:-}" ]; }

# choose_model [CHECKPOINT]: sets MODEL, unless it is given: to the base of a checkpoint; else to the embedded tiny BART
# if neither DATA_DIR, SPLIT nor TASKVECS is given, otherwise to bart-base, as in the published scripts.
choose_model() {
    if [ -n "${MODEL:-}" ]; then
        return
    elif [ -n "${1:-}" ]; then
        MODEL=$(base_of "$1")
    elif has_data; then
        MODEL=facebook/bart-base
    else
        MODEL=$TINY_BART
    fi
}

# is_tiny: whether MODEL is the embedded tiny BART, by any path.
is_tiny() { [ "${MODEL:-}" -ef $TINY_BART ]; }

# base_of PLACE: prints the embedded tiny BART if a run, a checkpoint, or the folder of a file of weights has its sizes,
# otherwise bart-base. All checkpoints of a run have the same sizes.
base_of() {
    local config
    for config in "$1/config.json" "$1"/*/config.json "$(dirname "$1")/config.json"; do
        if [ -f "$config" ]; then
            [ "$(sizes_in "$config")" != "$(sizes_in $TINY_BART/config.json)" ] || { echo $TINY_BART && return; }
            break
        fi
    done
    echo facebook/bart-base
}

sizes_in() {
    grep -oE '"(vocab_size|d_model|(en|de)coder_(layers|ffn_dim))": *[0-9]+' "$1" | tr -d ' ' | sort
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

# Writes the embedded gym if DATA_DIR is its folder.
make_embedded_gym() { [ "$DATA_DIR" != data/skill_gym ] || make_skill_gym; }

# Writes the embedded gym to data/skill_gym, once per version of its generator.
make_skill_gym() {
    local wanted
    wanted=$(cat task/skill_gym/*.py | cksum)
    if [ ! -f data/skill_gym/split.json ] || [ "$(cat data/skill_gym/generator 2>/dev/null)" != "$wanted" ]; then
        "$PYTHON" -m task.skill_gym.generate --output_dir data/skill_gym
        echo "$wanted" >data/skill_gym/generator
    fi
}

# Writes the conflict gym to data/conflict_gym, and untrained BARTs of width 16 and 32 for it to
# data/conflict_gym_bart/width<W>, once per version of their generator.
make_conflict_gym() {
    local wanted width models=data/conflict_gym_bart
    wanted=$(cat task/conflict_gym/*.py task/skill_gym/{pretraining,tokenizer}.py | cksum)
    if [ ! -f data/conflict_gym/split.json ] || [ "$(cat $models/generator 2>/dev/null)" != "$wanted" ]; then
        "$PYTHON" -m task.conflict_gym.generate --output_dir data/conflict_gym
        rm -rf $models
        mkdir -p $models
        for width in 16 32; do
            "$PYTHON" -m task.conflict_gym.bart --gym data/conflict_gym --width $width --output_dir $models/width$width
        done
        echo "$wanted" >$models/generator
    fi
}
