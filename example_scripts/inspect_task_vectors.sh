#!/usr/bin/env bash
# Do tasks with similar vectors have the same label? Tables and heat maps.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.vectors inspect "$@"
