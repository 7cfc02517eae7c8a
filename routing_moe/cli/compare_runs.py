"""Compare variants over runs of several seeds: mean and sample std per category, as tables and a picture.

    python -m routing_moe.cli.compare_runs models/compare_routings
    python -m routing_moe.cli.compare_runs models/compare_routings --order average random --baseline average
    python -m routing_moe.cli.compare_runs models/compare_routings --predict_split test --output_dir unseen

Reads what `--do_predict` wrote in FOLDER/<variant>/<run>/ and writes comparison.md (a row per variant),
comparison.csv (per variant and category), comparison_runs.csv (per run and category), comparison.png, .pdf.
Exits with 0; with 1 if a run is not finished (the tables are of the others); with 2 if there is no table.
"""

import argparse
import sys
from pathlib import Path

from dataloader.errors import InputError, in_brief
from dataloader.gym import PARTS
from dataloader.ontology import UNCATEGORISED, Ontology
from routing_moe import comparable_runs, results
from routing_moe.analysis.comparison import plot_comparison
from routing_moe.checks import ontology_path
from routing_moe.cli.console import tell
from routing_moe.comparable_runs import Run
from routing_moe.results import ScoresFile
from routing_moe.run_state import write_text


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    scores_file = ScoresFile(args.part, args.predict_split, args.checkpoint_name, args.prefix)
    try:
        runs = comparable_runs.find_runs(args.folder, scores_file)
        finished = comparable_runs.in_order([run for run in runs if run.scores is not None], args.order)
        unfinished = [f"not finished: {run} (no {scores_file.path})" for run in runs if run.scores is None]
        check(args, runs, finished, unfinished)
        notes = [*unfinished, *(f"warning: {line}" for line in comparable_runs.comparison_warnings(finished))]
        ontology = ontology_of(args, finished, notes)
        write_comparison(args, finished, ontology, notes)
    except InputError as error:
        return tell(error)
    except OSError as error:  # an unwritable folder, a full disk
        print(f"error: {in_brief(error)}", file=sys.stderr)
        return 2
    for note in notes:
        print(note, file=sys.stderr)
    return 1 if unfinished else 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, help="holds <variant>/<run>/; the runs of a variant differ in seed")
    add("--part", choices=("dev", "test"), default="test", help="which files' scores (default: test)")
    add("--predict_split", choices=PARTS, default="train", help="section of the split (default: train)")
    add("--checkpoint_name", default="best", help="which checkpoint's scores (default: best)")
    add("--prefix", default="", help="the --prefix that the scores were written with")
    add("--order", nargs="+", default=[], metavar="VARIANT", help="these first, others by name after them")
    add("--baseline", metavar="VARIANT", help="also the difference to this variant, paired by seed and task")
    add("--task_ontology", type=Path, help="ontology file (default: that of the runs)")
    add("--output_dir", type=Path, help="where to write (default: FOLDER)")
    return parser


def check(args, runs: list[Run], finished: list[Run], unfinished: list[str]) -> None:
    """Raises InputError with every reason for which there can be no table."""
    faults = comparable_runs.comparison_faults(runs)
    faults += comparable_runs.unknown_variants("--order", args.order, runs)
    if not finished:
        hint = f"scores are written with --do_predict --predict_split {args.predict_split}"
        faults += [*unfinished, f"{args.folder}: no run is finished; {hint}"]
    elif args.baseline:
        faults += comparable_runs.unknown_variants("--baseline", [args.baseline], finished)
    if faults:
        raise InputError(faults)


def ontology_of(args, runs: list[Run], notes: list[str]) -> Ontology:
    """--task_ontology, else that of the first run; notes if it knows none of the tasks."""
    settings = runs[0].settings
    path = args.task_ontology or ontology_path(settings["train_dir"], settings.get("task_ontology"))
    ontology = Ontology.load(path)
    if all(ontology.category(task) == UNCATEGORISED for task in runs[0].scores["task_prefix"]):
        where = path or f"{Path(settings['train_dir']) / 'ontology.json'} is not here"
        notes.append(f"warning: no task has a category ({where}); name a file with --task_ontology")
    return ontology


def write_comparison(args, runs: list[Run], ontology: Ontology, notes: list[str]) -> None:
    """Writes the five files and prints the table. Nothing in them hangs on when or where that is done."""
    scores = comparable_runs.scores_per_task(runs)
    per_run = results.means_per_run(scores, ontology)
    table = results.comparison_table(scores, ontology, args.baseline)
    what = f"mean score on the {args.part} files of the {args.predict_split} tasks"
    draws = {run.variant: run.draws for run in runs if run.draws > 1}
    explained = results.explain_comparison(what, args.checkpoint_name, args.baseline, draws)
    markdown = f"{explained}\n\n{results.comparison_markdown(table, args.baseline)}\n"
    place = args.output_dir or args.folder
    place.mkdir(parents=True, exist_ok=True)
    write_text(place / "comparison.csv", table.to_csv(index=False))
    write_text(place / "comparison_runs.csv", per_run.to_csv(index=False))
    write_text(place / "comparison.md", "\n".join([markdown, *(f"- {note}\n" for note in notes)]))
    for kind in ("png", "pdf"):
        plot_comparison(per_run, table, place / f"comparison.{kind}", what)
    print(f"{markdown}\n{place / 'comparison'}.md, .csv, .png, .pdf; {place / 'comparison_runs.csv'}")


if __name__ == "__main__":
    sys.exit(main())
