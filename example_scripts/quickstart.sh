#!/usr/bin/env bash
# From nothing to a trained mixture: makes .venv, writes the skill gym, trains, predicts, prints a table.
#   bash example_scripts/quickstart.sh
# OUTPUT_DIR (models/quickstart) is continued if an earlier call was interrupted.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

OUTPUT_DIR=${OUTPUT_DIR:-models/quickstart}
make_environment
OUTPUT_DIR=$OUTPUT_DIR bash example_scripts/train_routing_bart.sh --resume

routes=$(ls -d "$OUTPUT_DIR"/*-steps | sort -V | tail -n 1)
echo
echo "Scores of the 24 train tasks, mean per category (constant: always the most frequent training answer):"
echo
"$PYTHON" -m routing_moe.cli.show_scores "$OUTPUT_DIR"
cat <<EOF

Routes that the tasks learned (rows: tasks, columns: experts of each layer):
    $routes/route_t1.png
Curves and dev scores while training: $OUTPUT_DIR/curves.csv, $OUTPUT_DIR/losses.csv
Predictions, one file a task: $OUTPUT_DIR/best/predictions/

What to try next:
    source .venv/bin/activate                                    once in each shell
    python -m routing_moe.cli.train --help                       every flag
    bash example_scripts/train_routing_bart.sh --num_experts 4   another mixture (set OUTPUT_DIR)
    bash example_scripts/understand.sh $OUTPUT_DIR         which expert does what (2 minutes)
    bash example_scripts/finetune_a_list_of_tasks_moe.sh test $OUTPUT_DIR adapted
                                                                 fine-tune it on the 8 unseen tasks (10 minutes)
    MODEL=facebook/bart-base DATA_DIR=your_gym SPLIT=your_split.json OUTPUT_DIR=models/moe \\
        bash example_scripts/train_routing_bart.sh               the real thing, on a GPU
EOF
