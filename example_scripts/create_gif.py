"""How the routes of a run developed: an animation of its route maps, curves over training, and their table.

    python example_scripts/create_gif.py --run models/moe
    python example_scripts/create_gif.py --run models/moe --routes chosen --output_dir animations/moe_chosen
    python example_scripts/create_gif.py --run models/moe --title "Learned routes" --seconds_per_frame 0.25

Writes routes.gif, routes.mp4 (where ffmpeg is installed), dynamics.csv, dynamics.png and dynamics.pdf: a
frame, or a row per layer, for every evaluation. --routes soft: at the temperature of the step; soft_t1: at
temperature 1; chosen: only the heaviest expert of each layer. A run with a single evaluation gets the table
and the curves, but no animation.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataloader.errors import Faults, InputError
from dataloader.ontology import UNCATEGORISED, Ontology
from routing_moe.analysis.dynamics import dynamics_table
from routing_moe.analysis.runs import ontology_of
from routing_moe.analysis.saved_routes import KINDS, History, load_history
from routing_moe.cli.console import run_command
from routing_moe.io.files import unwritable, write_text
from routing_moe.io.run_folder import load_run_settings
from routing_moe.plots.animation import SECONDS_PER_FRAME, can_write_mp4, check_seconds, write_animation
from routing_moe.plots.dynamics import plot_dynamics

WHAT = {"soft": "Routes", "soft_t1": "Routes at temperature 1", "chosen": "Heaviest experts"}


def main(argv: list[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


def run(args: argparse.Namespace) -> None:
    place = args.output_dir or args.run / "analysis"
    history, ontology = check(args, place)
    title = args.title or f"{WHAT[args.routes]} of {history.name}"
    written = write_curves(history, place, title)
    if len(history.steps) > 1:
        written += write_animations(args, history, ontology, place, title)
    else:
        note = f"{args.run}: evaluated only once, nothing to animate; --eval_period sets how often"
        print(note, file=sys.stderr)
    print("\n".join(map(str, written)))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of a run, with <step>-steps/route.npy")
    add("--output_dir", type=Path, help="where to write (default: RUN/analysis)")
    add("--routes", choices=tuple(KINDS), default="soft", help="which routes (default: %(default)s)")
    add("--task_ontology", type=Path, metavar="FILE", help="ontology file (default: that of the run)")
    add("--title", help="heading of the pictures (default: the run's name)")
    seconds = dict(type=float, default=SECONDS_PER_FRAME, metavar="SECONDS")
    add("--seconds_per_frame", **seconds, help="how long an evaluation is shown (default: %(default)s)")
    return parser


def check(args, place: Path) -> tuple[History, Ontology]:
    """The history and the ontology to draw. Raises InputError with all faults of the flags."""
    faults = Faults()
    try:
        check_seconds(args.seconds_per_frame)
    except ValueError as error:
        faults.append(f"--seconds_per_frame is {error}")
    history = faults.of(load_history, args.run, args.routes, flag="run")
    if history and (fault := unwritable(place)):
        faults.append(f"--output_dir {fault}")
    settings = faults.of(load_run_settings, args.run) or {}
    flag = "task_ontology" if args.task_ontology else None
    ontology = faults.of(ontology_of, args.run, settings, args.task_ontology, flag=flag)
    if faults:
        raise InputError(faults)
    if all(ontology.category(task) == UNCATEGORISED for task in history.tasks):
        print("warning: no task has a category; name an ontology with --task_ontology", file=sys.stderr)
    return history.of(ontology.order(history.tasks)), ontology


def write_curves(history: History, place: Path, title: str) -> list[Path]:
    table = dynamics_table(history)
    place.mkdir(parents=True, exist_ok=True)
    paths = [place / f"dynamics.{kind}" for kind in ("csv", "png", "pdf")]
    write_text(paths[0], table.to_csv(index=False))
    for path in paths[1:]:
        plot_dynamics(table, path, title)
    return paths


def write_animations(args, history: History, ontology: Ontology, place: Path, title: str) -> list[Path]:
    kinds = ["gif", "mp4"] if can_write_mp4() else ["gif"]
    paths = [place / f"routes.{kind}" for kind in kinds]
    for path in paths:
        write_animation(history, ontology, path, title, args.seconds_per_frame)
    if "mp4" not in kinds:
        print(
            "routes.mp4 is not written: it needs ffmpeg with an H.264 encoder, which is not installed",
            file=sys.stderr,
        )
    return paths


if __name__ == "__main__":
    sys.exit(main())
