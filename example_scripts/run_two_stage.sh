#!/usr/bin/env bash
# The whole method: stage 1 learns routes, a merge resets the experts, stage 2 trains them with these routes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.two_stages "$@"
