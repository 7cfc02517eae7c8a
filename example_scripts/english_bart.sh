#!/usr/bin/env bash
# Make a small BART that knows English from a BERT, without a download.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.english_bart "$@"
