#!/usr/bin/env bash
# Builds CrossFit's gym of 160 tasks in data/gym, from public data sets or from the files of --mirror FOLDER.
#   bash example_scripts/build_gym.sh                 Further flags: `routing-moe build-gym`. Variable: OUTPUT_DIR.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

routing-moe build-gym --output_dir "${OUTPUT_DIR:-data/gym}" "$@"
