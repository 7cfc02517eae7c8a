#!/usr/bin/env bash
# What do the experts of a run do? Pictures, correlations with task features, ablation, one interactive page.
#   bash example_scripts/understand.sh RUN [flags of `routing-moe ablate`, such as --features category]
#   --plugin PLUGIN   the file that the run was trained with, for all commands
# Writes RUN/analysis/ with report.html. A run without experts to ablate (one expert, routes of examples) is analysed without.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
[ $# -ge 1 ] || fail "give a run folder, such as models/routing_bart"
RUN=$1 ARGS=("${@:2}")
take --plugin PLUGIN "" # ablate takes that of the run
[ ${#ARGS[@]} -gt 0 ] || ARGS=(--features all)

routing-moe inspect-routes "$RUN" ${PLUGIN:+--plugin "$PLUGIN"}
routing-moe create-gif --run "$RUN" ${PLUGIN:+--plugin "$PLUGIN"}
routing-moe correlate-routes "$RUN" ${PLUGIN:+--plugin "$PLUGIN"}
routing-moe ablate "$RUN" "${ARGS[@]}" || [ $? = 3 ] # 3: nothing to ablate
routing-moe report "$RUN" ${PLUGIN:+--plugin "$PLUGIN"}
