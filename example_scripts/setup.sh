# Sourced by the other scripts: changes to the top folder of the repository and selects the Python interpreter.
#
# PYTHON is that of .venv if it exists (quickstart.sh and tests/run_tests.sh create it), otherwise the variable PYTHON,
# otherwise python3. `make_environment EXTRAS` creates .venv and installs the project if requirements have changed.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=${PYTHON:-python3}; fi

# Flags of trainings: matrix products in bf16 on a GPU that supports it, otherwise as without flags. MIXED_PRECISION in
# the environment sets another precision: no (TF32 on a GPU), bf16 or fp16.
precision=()
if [ -z "${MIXED_PRECISION:-}" ] && nvidia-smi -L >/dev/null 2>&1; then MIXED_PRECISION=auto; fi
[ "${MIXED_PRECISION:-no}" = no ] || precision=(--mixed_precision "$MIXED_PRECISION")

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
