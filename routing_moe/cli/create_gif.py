"""Routes of a run over training: an animation of its route maps, and a table of their measures.

    routing-moe create-gif
    routing-moe create-gif --run models/moe
    routing-moe create-gif --run models/moe --routes chosen --output_dir animations/moe_chosen
    routing-moe create-gif --run models/moe --title "Learned routes"

Writes routes.gif and dynamics.csv: a frame, and a row per layer, for every evaluation. A run with a single
evaluation gets the table, but no animation. `routing-moe report` draws the measures as curves.
"""

import sys

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, problem_context
from dataloader.ontology import UNCATEGORISED
from routing_moe.analysis.runs import ontology_of
from routing_moe.analysis.saved_routes import load_history
from routing_moe.config.console import run_command
from routing_moe.config.explain import GifSettings
from routing_moe.io.files import unwritable
from routing_moe.io.run_folder import load_run_settings

TITLES = {"soft": "Routes", "soft_t1": "Routes at temperature 1", "chosen": "Heaviest experts"}


def main(argv: list[str] | None = None) -> int:
    return run_command(run, GifSettings, argv, __doc__)


def run(settings: GifSettings) -> None:
    with problem_context("--run "):
        history = load_history(settings.run, settings.routes)
    with problem_context("--task_ontology " if settings.task_ontology else ""):
        ontology = ontology_of(settings.run, load_run_settings(settings.run) or {}, settings.task_ontology)
    folder = settings.output_dir or settings.run / "analysis"
    if problem := unwritable(folder):
        raise InputError(f"--output_dir {problem}")
    if all(ontology.category(task) == UNCATEGORISED for task in history.tasks):
        print("warning: no task has a category; name an ontology with --task_ontology", file=sys.stderr)
    # Matplotlib is imported after the checks: it takes half a second.
    from routing_moe.analysis.route_metrics import dynamics_table
    from routing_moe.pictures.animation import save_animation

    table = dynamics_table(history)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "dynamics.csv"]
    write_text(paths[0], table.to_csv(index=False))
    if len(history.steps) > 1:
        paths.append(folder / "routes.gif")
        title = settings.title or f"{TITLES[settings.routes]} of {history.name}"
        in_order = history.of(ontology.order(history.tasks))
        save_animation(in_order, ontology, paths[-1], title)
    else:
        note = f"{settings.run}: evaluated only once, nothing to animate; --eval_period sets how often"
        print(note, file=sys.stderr)
    print("\n".join(map(str, paths)))
