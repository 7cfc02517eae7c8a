#!/usr/bin/env bash
# First steps: creates .venv, writes the skill gym, trains a mixture, predicts, and prints a table of scores.
#   bash example_scripts/quickstart.sh
# An interrupted call is continued in OUTPUT_DIR (models/quickstart).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

OUTPUT_DIR=${OUTPUT_DIR:-models/quickstart}
make_environment
OUTPUT_DIR=$OUTPUT_DIR bash example_scripts/train_routing_bart.sh --resume

routes=$(ls -d "$OUTPUT_DIR"/*-steps | sort -V | tail -n 1)
echo
echo "Mean scores of the 24 train tasks by category (constant: always the most frequent training answer):"
echo
"$PYTHON" -m routing_moe.cli.show_scores "$OUTPUT_DIR"
cat <<EOF

Learned routes of the tasks (rows: tasks, columns: experts of each layer):
    $routes/route_t1.png
Losses and dev scores during training: $OUTPUT_DIR/losses.csv, $OUTPUT_DIR/curves.csv
Predictions, one file per task: $OUTPUT_DIR/best/predictions/

Next steps:
    source .venv/bin/activate                                    once in each shell
    python -m routing_moe.cli.train --help                       all flags
    bash example_scripts/train_routing_bart.sh --num_experts 4   another mixture (set OUTPUT_DIR)
    bash example_scripts/understand.sh $OUTPUT_DIR         analyse the experts (2 minutes)
    bash example_scripts/finetune_a_list_of_tasks_moe.sh test $OUTPUT_DIR adapted
                                                                 fine-tune it on the 8 unseen tasks (10 minutes)
    MODEL=facebook/bart-base DATA_DIR=your_gym SPLIT=your_split.json OUTPUT_DIR=models/moe \\
        bash example_scripts/train_routing_bart.sh               train on your own data, on a GPU
EOF
