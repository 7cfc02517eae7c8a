#!/usr/bin/env bash
# Run the tests of what is committed with the lowest and with the newest versions of the requirements, each in a clone
# with a new environment, in a temporary folder. Downloads several GB, unless uv has them in its cache.
#   bash tests/run_tests_of_versions.sh                 both
#   bash tests/run_tests_of_versions.sh lowest -q       one of them; further arguments go to pytest
# lowest: what requirements.txt and setup.py allow, with Python 3.11 (uv looks for it, or downloads it); what these
# require in turn is the newest. newest: with the newest Python that is found, whatever PYTHON says.
source "$(dirname "${BASH_SOURCE[0]}")/../example_scripts/setup.sh"
case ${1:-} in
    lowest | newest) wanted=("$1") && shift ;;
    *) wanted=(lowest newest) ;;
esac
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
unset PYTHON && find_python && newest=$(command -v python3.14 || echo "$python")
"$python" -m venv "$work/uv" && "$work/uv/bin/python" -m pip install --quiet --disable-pip-version-check "uv>=0.8"
uv() { "$work/uv/bin/uv" --quiet "$@"; }

status=0
for versions in "${wanted[@]}"; do
    copy=$work/$versions
    git clone --quiet . "$copy"
    if [ "$versions" = lowest ]; then python=3.11 resolution=lowest-direct; else python=$newest resolution=highest; fi
    uv venv --seed --python "$python" "$copy/.venv"
    uv pip install --python "$copy/.venv/bin/python" --resolution "$resolution" --editable "${copy}[test]"
    (cd "$copy" && cat requirements.txt setup.py | cksum >.venv/installed-test) # so that run_tests.sh installs nothing
    echo "$versions versions, $("$copy/.venv/bin/python" --version):"
    uv pip freeze --python "$copy/.venv/bin/python" | grep -E "^(torch|transformers|peft|numpy|pandas)=="
    bash "$copy/tests/run_tests.sh" "$@" || status=$?
done
exit $status
