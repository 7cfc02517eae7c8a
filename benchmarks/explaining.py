"""Seconds of the analyses of routes: pictures, statistics, the report page, answers for many tasks.

    python benchmarks/explaining.py                                  160 tasks, 12 layers, 3 experts
    python benchmarks/explaining.py --tasks 12 --permutations 100 --samples first --rounds 1     a test run

Routes and features are random. `answers` are generated for the dev files of the embedded gym's unseen tasks,
by the embedded BART with 3 experts per layer and soft routes from a random router. Prints one JSON line,
which includes the sizes of written files; README.md explains it.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from transformers import AutoTokenizer

from benchmarks import measuring
from benchmarks.comparing import ratio
from benchmarks.task_vectors import UNSEEN, write_gym
from dataloader.encoding import TextFormat
from dataloader.gym import Gym
from dataloader.ontology import Ontology
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.analysis.correlation import correlate
from routing_moe.analysis.dynamics import dynamics_table
from routing_moe.analysis.features import features_of
from routing_moe.analysis.recovery import recovery_table
from routing_moe.analysis.route_metrics import overlap
from routing_moe.analysis.runs import ExplainedRun
from routing_moe.analysis.saved_routes import History, layer_names
from routing_moe.analysis.stability import stability
from routing_moe.config.explain import ReportSettings
from routing_moe.evaluation.scored_files import Decoding, load_task_files
from routing_moe.evaluation.scoring import predict
from routing_moe.io.accelerator import make_accelerator
from routing_moe.plots.animation import write_animation
from routing_moe.plots.clustermap import plot_clustered
from routing_moe.plots.correlations import plot_correlations
from routing_moe.plots.dynamics import plot_dynamics
from routing_moe.plots.expert_load import plot_load
from routing_moe.plots.route_change import plot_change
from routing_moe.plots.route_map import plot_routes
from routing_moe.plots.style import HeatScale
from routing_moe.report.data import report_data
from routing_moe.report.page import render
from task.skill_gym import TINY_BART
from task.skill_gym.tasks import metric_table

VARIANTS = ["routes", "change", "similarity", "load", "dynamics", "correlations", "animation", "correlate",
            "recovery", "stability", "page", "answers", "answers_by_task"]  # fmt: skip


@dataclass(frozen=True)
class Settings:
    model_size: str
    tasks: int
    layers: int
    experts: int
    evaluations: int
    permutations: int | None
    samples: str
    rounds: int
    variants: list[str] | None
    threads: int
    seed: int
    device: str


def main(argv: list[str] | None = None) -> None:
    settings = parse_settings(argv)
    measuring.prepare(settings)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        makers = explaining(folder, settings) | answering(folder, settings)
        runs = {name: timed(makers[name], settings.device) for name in settings.variants}
        variants = measuring.measure(runs, settings.rounds, {})
        sizes = {path.name: path.stat().st_size / 1e6 for path in sorted(folder.glob("*.*"))}
    ratios = {"answers_by_task_over_answers": ratio(variants, "answers_by_task", "answers")}
    measuring.print_report("explaining", settings, load, variants=variants, ratios=ratios, sizes_mb=sizes)


def timed(run: Callable[[], object], device: str) -> Callable[[], dict[str, float]]:
    def call() -> dict[str, float]:
        start = measuring.now(device)
        run()
        return {"s": measuring.now(device) - start}

    return call


def explaining(folder: Path, settings: Settings) -> dict[str, Callable[[], object]]:
    """Returns {variant: function} of all analyses that only need routes; pictures are PNG."""
    draw = np.random.default_rng(settings.seed)
    ontology = Ontology.load()
    size = (settings.evaluations, settings.tasks, settings.layers)
    values_SNLE = draw.dirichlet(np.full(settings.experts, 0.3), size)
    layers = layer_names(settings.layers // 2, range(settings.layers))
    steps = tuple(range(1, settings.evaluations + 1))
    history = History("run", ontology.tasks[: settings.tasks], layers, steps, values_SNLE)
    routes, before = history.at(-1), history.at(0)
    features = features_of(routes.tasks, ontology)
    permutations = {} if settings.permutations is None else {"permutations": settings.permutations}
    table = correlate(routes, features, **permutations)
    overlap_NN, scale = overlap(routes.values_NLE), HeatScale("overlap of routes", "Blues", 0.0, 1.0)
    runs = [ExplainedRun(folder / "none", {}, r, ontology, features) for r in (before, routes)]
    options = ReportSettings(runs=[], permutations=settings.permutations)
    half = settings.layers // 2

    def page() -> None:
        (folder / "report.html").write_text(render(report_data(runs, options)), encoding="utf-8")

    return {
        "routes": lambda: plot_routes(
            routes.values_NLE, routes.tasks, ontology, folder / "routes.png", half, layers=layers
        ),
        "change": lambda: plot_change(before, routes, ontology, folder / "change.png"),
        "similarity": lambda: plot_clustered(
            overlap_NN, routes.tasks, ontology, folder / "similarity.png", scale
        ),
        "load": lambda: plot_load([routes], folder / "load.png"),
        "dynamics": lambda: plot_dynamics(dynamics_table(history), folder / "dynamics.png"),
        "correlations": lambda: plot_correlations(table, routes, features, folder / "correlations.png"),
        "animation": lambda: write_animation(history, ontology, folder / "routes.gif", quiet=True),
        "correlate": lambda: correlate(routes, features, **permutations),
        "recovery": lambda: recovery_table(routes, features, **permutations),
        "stability": lambda: stability(before, routes),
        "page": page,
    }


def answering(folder: Path, settings: Settings) -> dict[str, Callable[[], object]]:
    """Returns {variant: function}; all generate the same answers, in batches across files or file by file."""
    tasks = [task.name for task in UNSEEN]
    gym = write_gym(folder / "gym", len(tasks), settings.seed)
    (gym / "metrics.json").write_text(json.dumps(metric_table()))
    model = RoutingBartForConditionalGeneration.from_bart(
        str(measuring.saved_bart(folder / "bart", settings.model_size, settings.seed)),
        settings.experts,
        init_eps=0.02,
        task_names=tasks,
        router_mode="softmax",
    ).to(settings.device)
    tokenizer = AutoTokenizer.from_pretrained(TINY_BART)
    texts = TextFormat(max_input_length=128, max_output_length=32)
    ids = {name: row for row, name in enumerate(tasks)}
    files = load_task_files(Gym(gym), tasks, "dev", settings.samples, tokenizer, texts, ids)
    decoding, accelerator = Decoding(num_beams=1, max_output_length=32), make_accelerator()

    def by_file() -> None:
        for file in files:
            predict(model, tokenizer, [file], decoding, accelerator)

    return {
        "answers": lambda: predict(model, tokenizer, files, decoding, accelerator),
        "answers_by_task": by_file,
    }


def parse_settings(argv: list[str] | None) -> Settings:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.explaining",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("--tasks", type=int, choices=range(6, 161), default=160, metavar="N", help="6 to 160 (default 160)")
    add("--layers", type=int, default=12, help="layers, half of them in the encoder (default 12)")
    add("--experts", type=int, default=3, help="experts per layer (default 3)")
    add("--evaluations", type=int, default=40, help="frames of the animation (default 40)")
    add("--permutations", type=int, help="permutations of each test (default: the default of each test)")
    add("--samples", choices=("first", "all"), default="all", help="of the tasks of `answers` (default all)")
    args = measuring.parse_turns(parser, argv, VARIANTS, rounds=3)
    return Settings(**vars(args))


if __name__ == "__main__":
    main()
