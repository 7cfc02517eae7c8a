"""Every picture the package draws, small and large, of random data with long names and signs: PICTURES."""

from functools import partial

import numpy as np
import pandas as pd
from planted_routes import features_of_columns, random_routes

from dataloader.ontology import Ontology
from routing_moe.analysis.correlation import correlate
from routing_moe.analysis.dynamics import dynamics_table
from routing_moe.analysis.route_metrics import overlap
from routing_moe.analysis.saved_routes import History, Routes
from routing_moe.model.given_routes import layer_names
from routing_moe.plots.ablation import plot_category_drops, plot_feature_drops, plot_task_drops
from routing_moe.plots.agreement import plot_agreement
from routing_moe.plots.clustermap import plot_clustered
from routing_moe.plots.correlations import plot_correlations
from routing_moe.plots.dynamics import plot_dynamics
from routing_moe.plots.expert_load import plot_load
from routing_moe.plots.gains import plot_gains
from routing_moe.plots.route_change import plot_change
from routing_moe.plots.route_map import plot_routes
from routing_moe.plots.similarity import Panel, plot_similarities
from routing_moe.plots.style import HeatScale
from routing_moe.plots.variants import plot_comparison, plot_curves
from routing_moe.results import comparison, gains

ONTOLOGY = Ontology.load()
OVERLAP = HeatScale("overlap of routes", "Blues", 0.0, 1.0)
LONG = "models/a-rather-long-name-of-a-run_with_all-its-settings/best"
SIGNS = "$x_{"  # neither a formula nor an error
TITLE = "A title with $signs_{ and many words that has to be broken into lines " * 2


def routes(n_tasks=4, n_layers=4, n_experts=3, seed=0, name="run", tasks=None) -> Routes:
    values_NLE = np.random.default_rng(seed).dirichlet([0.5] * n_experts, (n_tasks, n_layers))
    layers = layer_names(n_layers // 2, range(n_layers))
    return Routes(name, tuple(tasks or ONTOLOGY.tasks[-n_tasks:]), layers, values_NLE, 500)


def history(n_steps=3, n_tasks=4, n_layers=4, n_experts=2, seed=0) -> History:
    values_SNLE = np.random.default_rng(seed).dirichlet([0.5] * n_experts, (n_steps, n_tasks, n_layers))
    layers = layer_names(n_layers // 2, range(n_layers))
    steps = tuple(100 * (step + 1) for step in range(n_steps))
    return History("run", ONTOLOGY.tasks[:n_tasks], layers, steps, values_SNLE)


def drops(layers, experts, column, names) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    rows = [
        (layer, expert, name, draw.normal(0, 0.1))
        for layer in layers
        for expert in range(experts)
        for name in names
    ]
    return pd.DataFrame(rows, columns=["layer", "expert", column, "drop"])


def category_drops(layers, experts, categories) -> pd.DataFrame:
    return drops(layers, experts, "category", (*categories, "all"))


def task_drops(n_tasks, layers, experts) -> pd.DataFrame:
    return drops(layers, experts, "task", ONTOLOGY.tasks[:n_tasks])


def feature_drops(names) -> pd.DataFrame:
    rows = [
        (name, group, 0.1 * number)
        for number, name in enumerate(names)
        for group in ("with feature", "without feature", "all")
    ]
    return pd.DataFrame(rows, columns=["feature", "group", "drop"])


def correlated(n_layers, n_experts, n_features):
    """Returns (table, routes, features) of 20 tasks."""
    given = random_routes(0, tasks=20, layers=n_layers, experts=n_experts)
    draw = np.random.default_rng(0)
    names = [f"kind:{SIGNS} {n}" + " of a long name" * (n % 3) for n in range(n_features)]
    features = features_of_columns({name: draw.permutation(20) < 8 for name in names})
    return correlate(given, features, permutations=20), given, features


def panels(n_tasks, names) -> list[Panel]:
    draw = np.random.default_rng(0)
    return [
        Panel(name, "category: accuracy 0.12, chance 0.34", draw.uniform(-1, 1, (n_tasks, n_tasks)))
        for name in names
    ]


def agreement(names, kinds) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    rows = [(name, kind, 36, 3, *draw.uniform(size=3)) for name in names for kind in kinds]
    return pd.DataFrame(rows, columns=["vectors", "labelling", "scored", "k", "accuracy", "chance", "p"])


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


# ---------------------------------------------------------------------------- one function per picture


def _routes(shape, tasks=None, title=TITLE):
    given = routes(*shape, tasks=tasks)
    return lambda path: plot_routes(given.values_NLE, given.tasks, ONTOLOGY, path, shape[1] // 2, title)


def _change(*shape):
    before, after = routes(*shape), routes(*shape, seed=1)
    return lambda path: plot_change(before, after, ONTOLOGY, path, TITLE)


def _clustermap(n_tasks, title=TITLE):
    given = routes(n_tasks)
    return lambda path: plot_clustered(overlap(given.values_NLE), given.tasks, ONTOLOGY, path, OVERLAP, title)


def _load(n_runs, n_layers, name, title=TITLE):
    runs = [routes(20, n_layers, 3, seed, f"{name}{seed}") for seed in range(n_runs)]
    return lambda path: plot_load(runs, path, title)


def _dynamics(n_steps, n_layers, title=TITLE):
    table = dynamics_table(history(n_steps, 5, n_layers, 3))
    return lambda path: plot_dynamics(table, path, title)


def _similarities(n_tasks, names, title=TITLE):
    tasks = ONTOLOGY.tasks[-n_tasks:]
    given = panels(n_tasks, names)
    return lambda path: plot_similarities(given, tasks, ONTOLOGY, path, title=title)


def _agreement(names, kinds, title=TITLE):
    table = agreement(names, kinds)
    table.loc[0, ["accuracy", "chance", "p"]] = np.nan
    return lambda path: plot_agreement(table, path, title)


def _category_drops(layers, experts, categories, title=TITLE):
    table = category_drops(layers, experts, categories)
    return lambda path: plot_category_drops(table, path, title)


def _feature_drops(names, title=TITLE):
    table = feature_drops(names)
    return lambda path: plot_feature_drops(table, path, 3, title)


def _task_drops(n_tasks, layers, experts):
    table = task_drops(n_tasks, layers, experts)
    return lambda path: plot_task_drops(table, ONTOLOGY, path, TITLE)


def _correlations(*shape, title=TITLE):
    given = correlated(*shape)
    return lambda path: plot_correlations(*given, path, title)


def _comparison(variants, n_categories, n_runs):
    given = compared(variants, n_categories, n_runs)
    return lambda path: plot_comparison(*given, path, "mean score on the test files of the train tasks")


def _curves(variants):
    table = curves(variants)
    return lambda path: plot_curves(table, path)


def _gains(n_tasks, n_systems, baseline):
    given = gain_tables(n_tasks, n_systems)
    return lambda path: plot_gains(*given, path, baseline)


SIX, MANY = layer_names(1, range(2)), layer_names(6, range(12))

# {name: function that makes the picture's data and returns a function that draws it to a path}
PICTURES = {
    "routes, 1 layer": partial(_routes, (2, 1, 2)),
    "routes, small": partial(_routes, (3, 4, 2), ("boolq", SIGNS, "imdb"), None),
    "routes, large": partial(_routes, (160, 12, 8)),
    "change, small": partial(_change, 2, 2, 2),
    "change, large": partial(_change, 50, 6, 16),
    "clustermap, small": partial(_clustermap, 2, SIGNS),
    "clustermap, large": partial(_clustermap, 130),
    "load, one run": partial(_load, 1, 2, SIGNS, None),
    "load, many layers": partial(_load, 6, 24, LONG),
    "dynamics, one step": partial(_dynamics, 1, 2, None),
    "dynamics, small": partial(_dynamics, 2, 4, SIGNS),
    "dynamics, large": partial(_dynamics, 30, 24),
    "similarities, small": partial(_similarities, 5, [SIGNS]),
    "similarities, four": partial(_similarities, 5, ["a", LONG, "c", "d"], None),
    "similarities, large": partial(_similarities, 130, ["a", LONG, "c"]),
    "agreement, small": partial(_agreement, [SIGNS], ["category", "subcategory"], None),
    "agreement, large": partial(_agreement, ["a", "b", LONG], [f"a kind, number {i}" for i in range(9)]),
    "category drops, small": partial(_category_drops, ["enc 0"], 2, [SIGNS]),
    "category drops, large": partial(_category_drops, MANY, 5, [f"category {n}" for n in range(9)], None),
    "feature drops, small": partial(_feature_drops, [SIGNS], None),
    "feature drops, large": partial(_feature_drops, [f"subcategory:words/feature {n}" for n in range(25)]),
    "task drops": partial(_task_drops, 5, SIX, 3),
    "correlations, small": partial(_correlations, 1, 2, 1),
    "correlations, typical": partial(_correlations, 4, 3, 12, title=None),
    "correlations, large": partial(_correlations, 12, 8, 40),
    "comparison, small": partial(_comparison, [SIGNS], 1, 1),
    "comparison, typical": partial(_comparison, [f"variant {i}" for i in range(10)], 6, 3),
    "comparison, large": partial(_comparison, ["a long name " * 4, "b"], 7, 5),
    "curves, small": partial(_curves, ["a", SIGNS]),
    "curves, large": partial(_curves, [f"a long name, number {i}" for i in range(9)]),
    "gains, small": partial(_gains, 1, 1, SIGNS),
    "gains, many systems": partial(_gains, 8, 6, "a baseline of a long name " * 3),
    "gains, large": partial(_gains, 42, 2, "BART"),
}
