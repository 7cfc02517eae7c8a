#!/usr/bin/env bash
# Routes from gradients, without a router: one BART, gradient vectors, clusters, a mixture.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.gradient_routing "$@"
