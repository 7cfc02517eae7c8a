"""Flags that the commands which explain routes share."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from dataloader.errors import InputError, too_small
from routing_moe.analysis.correlation import PERMUTATIONS
from routing_moe.analysis.recovery import PERMUTATIONS as RECOVERY_PERMUTATIONS
from routing_moe.analysis.saved_routes import KINDS
from routing_moe.io.files import unwritable


def explaining_parser(command: str, description: str) -> argparse.ArgumentParser:
    """The parser of `python -m routing_moe.cli.<command>`, with the flags that say which routes."""
    parser = argparse.ArgumentParser(
        prog=f"python -m routing_moe.cli.{command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # an abbreviated flag would change its meaning when a new one is added
    )
    add_routes(parser)
    return parser


# fmt: off
def add_routes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("routes").add_argument
    add("runs", nargs="+", metavar="RUN", help="run folder, or a folder with a checkpoint")
    add("--step", default="best", help="of which evaluation: best (dev score), last, or a step (default: best)")
    add("--routes", choices=tuple(KINDS), default="soft", help="soft: the softmax at the temperature of that step; soft_t1: at temperature 1; chosen: the heaviest expert of each layer, one-hot (default: soft)")
    add("--task_ontology", help="ontology file (default: that of the run)")


def add_features(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("features and tests").add_argument
    add("--feature_file", help="CSV file: task, kind:value columns of 0 and 1, columns of numbers or of names (default: the gym's skills.csv, else that of the 160 CrossFit tasks)")
    add("--permutations", type=int, help=f"permutations of the tasks for each p (default: {PERMUTATIONS} for correlations, {RECOVERY_PERMUTATIONS} for the tests of whole kinds)")
    add("--seed", type=int, default=0, help="of the permutations (default: 0)")


def add_writing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("writing").add_argument
    add("--title", help="over the pictures (default: the run's name)")
    add("--output_dir", type=Path, help="where to write (default: RUN/analysis of a single run)")
# fmt: on


def checked_output_dir(args: argparse.Namespace, least: Mapping[str, int]) -> Path:
    """Where to write. Raises InputError if it is not said or not possible, or a number is too small."""
    faults = too_small(args, least)
    folder = args.output_dir
    if folder is None and len(args.runs) > 1:
        faults.append(f"--output_dir: must be given for {len(args.runs)} runs")
    elif fault := unwritable(folder := folder or Path(args.runs[0]) / "analysis"):
        faults.append(f"--output_dir {fault}")
    if faults:
        raise InputError(faults)
    return folder
