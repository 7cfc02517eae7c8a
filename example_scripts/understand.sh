#!/usr/bin/env bash
# Analyse the experts of runs: understand.sh [RUN ...].
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.understand "$@"
