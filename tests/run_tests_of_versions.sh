#!/usr/bin/env bash
# Run the tests with the lowest and with the newest versions of the requirements, each in a new environment beside a
# copy of the working tree. Downloads several GB, unless uv has them in its cache.
#   bash tests/run_tests_of_versions.sh                 both
#   bash tests/run_tests_of_versions.sh lowest -q       one of them; further arguments go to pytest
# lowest: what requirements.txt and setup.py allow, with Python 3.11 (uv looks for it, or downloads it); what these
# require in turn is the newest. newest: with the newest Python that is found. Environment (default):
#   OUTPUT_DIR  folder of the copies and environments (a temporary folder, which is deleted)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1:-} in
    lowest | newest) wanted=("$1") && shift ;;
    *) wanted=(lowest newest) ;;
esac
[ -n "${OUTPUT_DIR:-}" ] || { OUTPUT_DIR=$(mktemp -d) && trap 'rm -rf "$OUTPUT_DIR"' EXIT; }
mkdir -p "$OUTPUT_DIR" && OUTPUT_DIR=$(cd "$OUTPUT_DIR" && pwd)

source example_scripts/setup.sh
find_python && "$python" -m venv "$OUTPUT_DIR/uv"
"$OUTPUT_DIR/uv/bin/python" -m pip install --quiet --disable-pip-version-check "uv>=0.8"
uv() { "$OUTPUT_DIR/uv/bin/uv" --quiet "$@"; }

# tests_of lowest|newest PYTEST_FLAGS: installs these versions beside a copy of the repository, and runs the tests there.
tests_of() {
    local copy=$OUTPUT_DIR/$1 python resolution
    case $1 in
        lowest) python=3.11 resolution=lowest-direct ;;
        newest) unset PYTHON && find_python && python=$(command -v python3.14 || echo "$python") resolution=highest ;;
    esac
    mkdir -p "$copy"
    git ls-files --cached --others --exclude-standard -z | while IFS= read -r -d '' file; do
        if [ -e "$file" ]; then printf '%s\0' "$file"; fi # git also lists what is deleted
    done | xargs -0 cp --parents -t "$copy"
    uv venv --clear --seed --python "$python" "$copy/.venv"
    uv pip install --python "$copy/.venv/bin/python" --resolution "$resolution" --editable "${copy}[test]"
    # The sign of make_environment in setup.sh that nothing is left to install.
    (cd "$copy" && cat requirements.txt setup.py | cksum >.venv/installed-test)
    echo "$1 versions, $("$copy/.venv/bin/python" --version): $(uv pip freeze --python "$copy/.venv/bin/python" |
        grep -iE "^($(sed -E 's/[<>=].*//; s/_/[-_]/' requirements.txt | paste -sd '|'))==" | tr '\n' ' ')"
    bash "$copy/tests/run_tests.sh" "${@:2}"
}

status=0
for versions in "${wanted[@]}"; do tests_of "$versions" "$@" || status=$?; done
exit $status
