#!/usr/bin/env bash
# Train all types of routing with several seeds, and compare them in a table and a picture.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.routings "$@"
