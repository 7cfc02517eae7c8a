"""One page about runs: settings, curves, scores, routes to click through, features, ablated experts.

    python -m routing_moe.cli.report models/moe
    python -m routing_moe.cli.report runs/seed42 runs/seed43 runs/seed44 --output_file runs/report.html

The page is a single HTML file that needs no network: open it, mail it, put it anywhere. What switching
experts off costs is in it if `python -m routing_moe.cli.ablate RUN` was run before; scores and predictions
are those of RUN/best.
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from dataloader.errors import Faults, InputError, too_small
from routing_moe.analysis.runs import read_runs
from routing_moe.cli.console import run_command
from routing_moe.cli.routes_arguments import add_features, explaining_parser
from routing_moe.io.files import folder_lock, unwritable, write_text
from routing_moe.report.data import ReportOptions, report_data
from routing_moe.report.page import render


def main(argv: list[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


def run(args: argparse.Namespace) -> None:
    path = output_path(args)
    with ExitStack() as held:
        for folder in run_folders(args.runs):
            held.enter_context(folder_lock(folder, "RUN"))
        runs = read_runs(args.runs, args.step, args.routes, args.task_ontology, args.feature_file)
        options = ReportOptions(args.title, args.samples, args.permutations, args.seed)
        page = render(report_data(runs, options))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB): {path.resolve().as_uri()}")


def build_parser() -> argparse.ArgumentParser:
    parser = explaining_parser("report", __doc__)
    add_features(parser)
    add = parser.add_argument_group("the page").add_argument
    add("--samples", type=int, default=5, help="predictions shown of each task (default: 5)")
    add("--title", help="of the page (default: the runs' names)")
    add("--output_file", type=Path, help="default: RUN/analysis/report.html of a single run")
    return parser


def run_folders(places: list[str]) -> list[Path]:
    """The run folders of the places (a run or a folder in one) that are writable, hence can be locked."""
    around = [(Path(place).absolute(), Path(place).absolute().parent) for place in places]
    found = [next((folder for folder in both if (folder / "run.json").is_file()), None) for both in around]
    different = {folder.resolve(): folder for folder in found if folder}
    return [folder for folder in different.values() if not unwritable(folder)]


def output_path(args: argparse.Namespace) -> Path:
    """Raises InputError if it is not said or cannot be written, or a number is too small."""
    faults = Faults(too_small(args, {"permutations": 1, "seed": 0, "samples": 0}))
    path = args.output_file
    if path is None and len(args.runs) > 1:
        faults.append(f"--output_file: must be given for {len(args.runs)} runs")
    path = path or Path(args.runs[0]) / "analysis" / "report.html"
    if path.is_dir():
        faults.append(f"--output_file {path}: is a folder; name a file, such as {path / 'report.html'}")
    elif fault := unwritable(path.parent):
        faults.append(f"--output_file {fault}")
    if faults:
        raise InputError(faults)
    return path


if __name__ == "__main__":
    sys.exit(main())
