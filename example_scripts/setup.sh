# Sourced by the other scripts: changes to the top folder of the repository and selects the Python interpreter.
#
# PYTHON is that of .venv if it exists (quickstart.sh and tests/run_tests.sh create it), otherwise the variable PYTHON,
# otherwise python3. `make_environment EXTRAS` creates .venv and installs the project if requirements have changed.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=${PYTHON:-python3}; fi

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
