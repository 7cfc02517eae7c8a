#!/usr/bin/env bash
# The study on real tasks, at a scale for a laptop: its part train, unseen or labels.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$PYTHON" -m routing_moe.studies.real_gym "$@"
