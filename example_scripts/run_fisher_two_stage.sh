#!/usr/bin/env bash
# The method with Fisher vectors: computes and reduces them, then both stages.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.two_stages fisher "$@"
