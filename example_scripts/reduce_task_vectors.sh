#!/usr/bin/env bash
# Reduce task vectors to principal components, fitted on the train tasks.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.vectors reduce "$@"
