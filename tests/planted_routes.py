"""Shared by the tests of route analyses: routes and features with a known structure, folders of runs."""

import json

import numpy as np
from mistakes import Place

from routing_moe.analysis.features import Features
from routing_moe.analysis.saved_routes import SavedRoutes
from routing_moe.checkpoints.folder import PROGRESS_FILE

TREE = {"words": {"meaning": ["hot", "big"], "form": ["cats", "mice"]}, "numbers": {"all": ["one", "two"]}}
NAMES = ("hot", "big", "cats", "mice", "one", "two")
SKILLS = """\
task,skill:spell,skill:count,size
hot,1,0,short
big,1,0,short
cats,1,0,long
mice,0,1,long
one,0,1,short
two,0,1,
"""


def routes_of(values, tasks=None, layers=None, name="run", step=None) -> SavedRoutes:
    values_NLE = np.asarray(values, dtype=float)
    tasks = tuple(tasks or (f"task{n}" for n in range(len(values_NLE))))
    layers = tuple(layers or (f"enc {n}" for n in range(values_NLE.shape[1])))
    return SavedRoutes(name, tasks, layers, values_NLE, step)


def random_routes(seed: int, tasks=30, layers=4, experts=3, **fields) -> SavedRoutes:
    draw = np.random.default_rng(seed)
    return routes_of(draw.dirichlet(np.ones(experts), (tasks, layers)), **fields)


def features_of_columns(columns: dict, tasks=None) -> Features:
    values_NF = np.array(list(columns.values()), dtype=float).T
    tasks = tuple(tasks or (f"task{n}" for n in range(len(values_NF))))
    return Features(tasks, tuple(columns), values_NF)


def one_hot(choices_NL, experts=3) -> np.ndarray:
    return np.eye(experts)[np.asarray(choices_NL)]


def write_run(folder, history: dict, tasks=NAMES, encoder_layers=1, best=None, gym=None, **config):
    """Writes a run folder like training, without weights. history: {step: routes (N, L, E)}."""
    for step, values_NLE in history.items():
        place = folder / f"{step}-steps"
        place.mkdir(parents=True)
        for name in ("route", "route_t1"):
            np.save(place / f"{name}.npy", np.asarray(values_NLE, dtype=np.float32))
        (place / "route_tasks.txt").write_text("".join(f"{task}\n" for task in tasks))
    depth = np.shape(next(iter(history.values())))[1]
    (folder / "best").mkdir(exist_ok=True)
    sizes = {
        "model_type": "routing_bart",
        "encoder_layers": encoder_layers,
        "decoder_layers": depth - encoder_layers,
    }
    (folder / "best" / "config.json").write_text(json.dumps(sizes | config))
    (folder / "best" / PROGRESS_FILE).write_text(json.dumps({"step": best or next(iter(history))}))
    scores = [(step, float(step == best)) for step in history]
    rows = "".join(f"{n},{step},1.0,1.0,{score}\n" for n, (step, score) in enumerate(scores))
    (folder / "losses.csv").write_text(f",steps,train_loss,dev_loss,dev_performance\n{rows}")
    settings = {"train_dir": str(gym), "seed": 1, "learning_rate": 0.1}
    (folder / "run.json").write_text(json.dumps({"settings": settings, "command": "train", "git": None}))
    return folder


def write_place(folder, runs=("one", "two")) -> Place:
    """Writes a gym with six tasks without rows, and runs of three layers, experts and evaluations."""
    place = Place(folder, folder / "gym", folder / "none")
    place.write(place.gym / "ontology.json", TREE)
    place.write(place.gym / "skills.csv", SKILLS)
    for number, name in enumerate(runs):
        draw = np.random.default_rng(number)
        history = {step: draw.dirichlet(np.full(3, 0.5), (6, 3)) for step in (10, 20, 30)}
        write_run(folder / name, history, best=20, gym=place.gym)
    return place
