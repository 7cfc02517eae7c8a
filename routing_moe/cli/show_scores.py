"""Print a run's scores by category, beside what a constant answer would get.

    python -m routing_moe.cli.show_scores models/moe
    python -m routing_moe.cli.show_scores models/moe --predict_split test --output scores.csv

Reads what `--do_predict` wrote. The constant answer is each task's most frequent training answer.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from dataloader.errors import InputError
from dataloader.gym import PARTS
from dataloader.ontology import Ontology
from routing_moe.cli.console import reporting_errors
from routing_moe.io.files import write_text
from routing_moe.io.run_folder import load_run_settings
from routing_moe.results.scores import ScoresFile, category_table, markdown_table, read_scores
from routing_moe.training.checks import ontology_path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--checkpoint_name", default="best", help="which checkpoint's scores (default: best)")
    parser.add_argument(
        "--predict_split", choices=PARTS, default="train", help="section of the split (default: train)"
    )
    parser.add_argument("--prefix", default="", help="the --prefix that the scores were written with")
    parser.add_argument("--output", default=None, help="also write the table to this CSV file")
    args = parser.parse_args(argv)
    with reporting_errors() as result:
        table = table_of_run(args.run, args.checkpoint_name, args.predict_split, args.prefix)
        print(markdown_table(table))
        if args.output:
            write_text(args.output, table.to_csv())
    return result.exit_code


def table_of_run(run: Path, checkpoint_name: str, section: str, prefix: str) -> pd.DataFrame:
    """`results.category_table` of a run's dev and test scores."""
    settings = load_run_settings(run)
    if settings is None:
        raise InputError(f"{run}: holds no run (no run.json)")
    scores = {}
    for part in ("dev", "test"):
        path = run / ScoresFile(part, section, checkpoint_name, prefix).path
        if not path.is_file():
            raise InputError(f"{path}: not found; write it with --do_predict --predict_split {section}")
        scores[part] = read_scores(path)
    return category_table(
        scores, Ontology.load(ontology_path(settings["train_dir"], settings.get("task_ontology")))
    )


if __name__ == "__main__":
    sys.exit(main())
