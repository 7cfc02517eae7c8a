#!/usr/bin/env bash
# Routes found by loss, without a router: one BART, clusters of its gradients, a mixture that refines them.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.refined_routing "$@"
