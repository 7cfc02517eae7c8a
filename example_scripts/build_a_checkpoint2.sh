#!/usr/bin/env bash
# The step between the two stages: the router of a trained run with fresh pre-trained experts.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.two_stages merge "$@"
