"""Every picture the package draws, of random data with long names and signs: PICTURES."""

import numpy as np
import pandas as pd
from planted_routes import features_of_columns, random_routes

from dataloader.ontology import Ontology
from routing_moe.analysis.correlation import correlate
from routing_moe.analysis.route_metrics import overlap
from routing_moe.analysis.saved_routes import History, SavedRoutes
from routing_moe.model.given_routes import layer_names
from routing_moe.pictures import dots, heat_maps, lines
from routing_moe.results import comparison, gains

ONTOLOGY = Ontology.load()
LONG = "models/a-rather-long-name-of-a-run_with_all-its-settings/best"
SIGNS = "$x_{"  # neither a formula nor an error
TITLE = "A title with $signs_{ and many words that has to be broken into lines " * 2


def routes(n_tasks=4, n_layers=4, n_experts=3, seed=0, name="run", tasks=None) -> SavedRoutes:
    values_NLE = np.random.default_rng(seed).dirichlet([0.5] * n_experts, (n_tasks, n_layers))
    layers = layer_names(n_layers // 2, range(n_layers))
    return SavedRoutes(name, tuple(tasks or ONTOLOGY.tasks[-n_tasks:]), layers, values_NLE, 500)


def history(n_steps=3, n_tasks=4, n_layers=4, n_experts=2, seed=0) -> History:
    values_SNLE = np.random.default_rng(seed).dirichlet([0.5] * n_experts, (n_steps, n_tasks, n_layers))
    layers = layer_names(n_layers // 2, range(n_layers))
    steps = tuple(100 * (step + 1) for step in range(n_steps))
    return History("run", ONTOLOGY.tasks[:n_tasks], layers, steps, values_SNLE)


def task_drops(n_tasks, layers, experts) -> pd.DataFrame:
    columns = dict(layer=layers, expert=range(experts), task=ONTOLOGY.tasks[:n_tasks])
    index = pd.MultiIndex.from_product(columns.values(), names=columns)
    return pd.DataFrame({"drop": np.random.default_rng(0).normal(0, 0.1, len(index))}, index).reset_index()


def correlated(n_layers, n_experts, n_features):
    """Returns (table, routes, features) of 20 tasks."""
    given = random_routes(0, tasks=20, layers=n_layers, experts=n_experts)
    draw = np.random.default_rng(0)
    names = [f"kind:{SIGNS} {n}" + " of a long name" * (n % 3) for n in range(n_features)]
    features = features_of_columns({name: draw.permutation(20) < 8 for name in names})
    return correlate(given, features, permutations=0), given, features


def compared(variants, n_categories, n_runs):
    """Returns (means per run, comparison table) of random scores; the last variant has a run less."""
    tree = {
        f"category of long name {i}": {"": [f"task {i} {k}" for k in range(i + 1)]}
        for i in range(n_categories)
    }
    ontology, random = Ontology(tree), np.random.default_rng(0)
    rows = [
        (variant, f"seed{seed}", seed, task, random.uniform(0.2, 0.9), 0.05)
        for variant in variants
        for seed in range(n_runs - (variant == variants[-1] and n_runs > 1))
        for task in ontology.tasks
    ]
    columns = ["variant", "run", "seed", "task", "performance", "constant"]
    rows = pd.DataFrame(rows, columns=columns).assign(chance=0.5, copy=0.9)
    return comparison.means_per_run(rows, ontology), comparison.comparison_table(rows, ontology)


def curves(variants) -> pd.DataFrame:
    rows = [
        (variant, f"seed{seed}", seed, step, factor * step, 0.1 * seed)
        for factor, variant in enumerate(variants, start=1)
        for seed in (1, 2)
        for step in (10, 20)
    ]
    return pd.DataFrame(rows, columns=["variant", "run", "seed", "step", "flops", "dev_score"])


def gain_tables(n_tasks, n_systems):
    """Returns (per task, per system) of random scores: small and zero baselines, huge gains, long names."""
    random = np.random.default_rng(0)
    tasks = [f"task_{i}" + "-of-a-long-name" * (i % 4) for i in range(n_tasks)]
    base = random.uniform(0.05, 0.8, n_tasks)
    if n_tasks > 3:
        base[[1, 2, 3]] = [0.0, -0.03, 0.02]
    index = pd.Index(tasks, name="task")
    summaries = {"base": pd.DataFrame({"mean": base, "std": 0.1, "n": 5.0}, index=index)}
    for number in range(n_systems):
        name = f"system_{number}" + "_of_a_long_name" * (number % 3)
        means = np.clip(base + random.normal(0.03, 0.1, n_tasks), -0.1, 1)
        summaries[name] = pd.DataFrame({"mean": means, "std": 0.1, "n": 5.0}, index=index)
    per_task = gains.gains_per_task({name: {0: table} for name, table in summaries.items()}, tasks)
    return per_task, gains.gains_per_system(per_task)


# ---- the pictures


def route_map(*shape, tasks=None):
    drawn = routes(*shape, tasks=tasks)
    return heat_maps.plot_routes(drawn.values_NLE, drawn.tasks, drawn.layers, ONTOLOGY)


def clustermap(n_tasks):
    drawn = routes(n_tasks)
    return heat_maps.plot_clustered(overlap(drawn.values_NLE), drawn.tasks, ONTOLOGY, heat_maps.OVERLAP)


KINDS = [f"category {n}" for n in range(9)]

# {name: function that returns the figure}
PICTURES = {
    "routes, large": lambda: route_map(41, 6, 3),
    "clustermap": lambda: clustermap(20),
    "correlations": lambda: heat_maps.plot_correlations(*correlated(4, 6, 12)),
    "comparison": lambda: dots.plot_comparison(*compared([SIGNS, *KINDS[:4]], 3, 3)),
    "gains, many systems": lambda: dots.plot_gains(*gain_tables(4, 4), "a baseline of a long name " * 3),
    "gains, many tasks": lambda: dots.plot_gains(*gain_tables(24, 1), SIGNS),
    "load": lambda: lines.plot_load([routes(20, 12, 3, n, f"{LONG}{n}") for n in range(3)]),
    "curves": lambda: lines.plot_curves(curves([f"a long name, number {i}" for i in range(5)])),
}
