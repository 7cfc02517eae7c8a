"""Compare variants over runs of several seeds: mean and sample std per category, as tables and a picture.

    python -m routing_moe.cli.compare_runs models/compare_routings
    python -m routing_moe.cli.compare_runs models/compare_routings --order average random --baseline average
    python -m routing_moe.cli.compare_runs models/compare_routings --predict_split test --output_dir unseen
    python -m routing_moe.cli.compare_runs models/compare_routings --match flops --leave_out two_stage

Reads what `--do_predict` wrote in FOLDER/<variant>/<run>/ and writes comparison.md (a row per variant),
comparison.csv (per variant and category), comparison_runs.csv (per run and category), comparison.png, .pdf;
comparison_cost.csv (parameters, steps, FLOPs); comparison_curves.csv, .png, .pdf (dev scores along training).
With --match it compares the dev scores of the last evaluations within an equal training budget. File names
then begin with comparison_at_equal_steps or comparison_at_equal_flops.
Exits with 0; with 1 if a run is not finished (the tables are of the others); with 2 if there is no table.
"""

import argparse
import sys
from pathlib import Path

from dataloader.errors import InputError
from dataloader.gym import PARTS
from dataloader.ontology import UNCATEGORISED, Ontology
from routing_moe.cli.console import reporting_errors
from routing_moe.io.files import write_text
from routing_moe.plots.variant_curves import plot_curves
from routing_moe.plots.variants import plot_comparison
from routing_moe.results import compared_costs, compared_runs
from routing_moe.results import scores as results
from routing_moe.results.compared_costs import Compared
from routing_moe.results.compared_runs import Run
from routing_moe.results.scores import ScoresFile
from routing_moe.training.checks import ontology_path


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    with reporting_errors() as result:
        check_match(args)
        scores_file = ScoresFile(args.part, args.predict_split, args.checkpoint_name, args.prefix)
        compared = find_compared(args, scores_file)
        runs = [each.run for each in compared.costs]
        finished = [run for run in runs if run.scores is not None]
        lacking = "evaluation of its last step" if args.match else scores_file.path
        unfinished = [f"not finished: {run} (no {lacking})" for run in runs if run.scores is None]
        check(args, runs, finished, unfinished)
        notes = [*unfinished, *(f"warning: {line}" for line in compared_runs.comparison_warnings(finished))]
        ontology = ontology_of(args, finished, notes)
        write_comparison(args, compared, finished, ontology, notes)
        for note in notes:
            print(note, file=sys.stderr)
        result.exit_code = 1 if unfinished else 0
    return result.exit_code


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, help="holds <variant>/<run>/; the runs of a variant differ in seed")
    add("--part", choices=("dev", "test"), help="which files' scores (default: test; with --match dev)")
    add("--predict_split", choices=PARTS, default="train", help="section of the split (default: train)")
    add("--checkpoint_name", default="best", help="which checkpoint's scores (default: best)")
    add("--prefix", default="", help="the --prefix that the scores were written with")
    add("--order", nargs="+", default=[], metavar="VARIANT", help="these first, others by name after them")
    add("--baseline", metavar="VARIANT", help="also the difference to this variant, paired by seed and task")
    add("--match", choices=compared_costs.BUDGETS, help="at equal steps or FLOPs (default: as trained)")
    add("--leave_out", nargs="+", default=[], metavar="VARIANT", help="compare without these")
    add("--task_ontology", type=Path, help="ontology file (default: that of the runs)")
    add("--output_dir", type=Path, help="where to write (default: FOLDER)")
    return parser


def check_match(args) -> None:
    """Fills in --part. Raises InputError for flags that cannot be combined with --match."""
    args.part = args.part or ("dev" if args.match else "test")
    if not args.match:
        return
    faults = []
    if args.part == "test":
        faults.append(
            f"--part test: with --match {args.match} only dev files have scores, those of the evaluations in "
            "training; for test scores train every variant to the budget (MATCH=flops of compare_routings.sh)"
        )
    for name, default in (("predict_split", "train"), ("checkpoint_name", "best"), ("prefix", "")):
        if getattr(args, name) != default:
            faults.append(f"--{name} has no effect with --match: evaluations in training are of train tasks")
    if faults:
        raise InputError(faults)


def find_compared(args, scores_file: ScoresFile) -> Compared:
    """The folder's runs in order, with their costs and the scores to compare."""
    runs = compared_runs.in_order(compared_runs.find_runs(args.folder, scores_file), args.order)
    if faults := compared_runs.unknown_variants("--leave_out", args.leave_out, runs):
        raise InputError(faults)
    runs = [run for run in runs if run.variant not in args.leave_out]
    costs = compared_costs.find_costs(args.folder, runs, args.checkpoint_name)
    return compared_costs.at_budget(costs, args.match) if args.match else Compared(costs)


def check(args, runs: list[Run], finished: list[Run], unfinished: list[str]) -> None:
    """Raises InputError with every reason for which there can be no table."""
    faults = compared_runs.comparison_faults(runs)
    faults += compared_runs.unknown_variants("--order", args.order, runs)
    if not finished:
        hint = f"scores are written with --do_predict --predict_split {args.predict_split}"
        faults += [*unfinished, f"{args.folder}: no run is finished; {hint}"]
    elif args.baseline:
        faults += compared_runs.unknown_variants("--baseline", [args.baseline], finished)
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


def write_comparison(args, compared: Compared, runs: list[Run], ontology: Ontology, notes) -> None:
    """Writes the files and prints the tables. The contents do not depend on time or machine."""
    scores = compared_runs.scores_per_task(runs)
    per_run = results.means_per_run(scores, ontology)
    table = results.comparison_table(scores, ontology, args.baseline)
    costs = compared_costs.cost_table(compared)
    what = f"mean score on the {args.part} files of the {args.predict_split} tasks"
    draws = {run.variant: run.draws for run in runs if run.draws > 1}
    checkpoint = "of the last evaluation within the budget" if args.match else args.checkpoint_name
    parts = [
        *([compared_costs.explain_budget(compared)] if args.match else []),
        results.explain_comparison(what, checkpoint, args.baseline, draws),
        results.comparison_markdown(table, args.baseline),
        compared_costs.cost_markdown(compared, costs),
    ]
    markdown = "\n\n".join(parts) + "\n"
    place = (args.output_dir or args.folder) / (
        f"comparison_at_equal_{args.match}" if args.match else "comparison"
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    write_text(beside(place, ".csv"), table.to_csv(index=False))
    write_text(beside(place, "_runs.csv"), per_run.to_csv(index=False))
    write_text(beside(place, "_cost.csv"), costs.to_csv(index=False))
    write_text(beside(place, ".md"), "\n".join([markdown, *(f"- {note}\n" for note in notes)]))
    curves = compared_costs.curves(compared.costs)
    if len(curves):
        write_text(beside(place, "_curves.csv"), curves.to_csv(index=False))
    for kind in (".png", ".pdf"):
        plot_comparison(per_run, table, beside(place, kind), what)
        if len(curves):
            plot_curves(curves, beside(place, f"_curves{kind}"))
    written = "_runs.csv, _cost.csv" + (", _curves.csv, .png, .pdf" if len(curves) else "")
    print(f"{markdown}\n{place}.md, .csv, .png, .pdf; {written}")


def beside(place: Path, end: str) -> Path:
    return place.with_name(place.name + end)


if __name__ == "__main__":
    sys.exit(main())
