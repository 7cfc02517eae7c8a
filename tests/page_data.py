"""Synthetic data for the report page, in the shape that `routing_moe.report.page.render` takes.

    page_data(n_tasks=12, encoder_layers=2, decoder_layers=1, n_experts=3, n_runs=2)

Every number is rounded; unknown numbers are None. Tasks and runs are given as indices into "tasks" and
"runs"; expert e of layer l is column l * E + e of the routes and of the drops of the ablation. Routes are
integers, weights in ten-thousandths. The "order" of a run is that of similarity.png; row n of its "routes"
and "nearest" belongs to its n-th task.
"""

from __future__ import annotations

import random

KINDS = {
    "classification": ("#0173b2", {"emotion": "#4f9dc9", "nli": "#01517d", "sentiment analysis": "#8fc1de"}),
    "conditional generation": ("#de8f05", {"dialogue": "#e8b150", "summarization": "#9b6403"}),
    "qa": ("#cc78bc", {"closed-book qa": "#dba0d0", "multiple-choice qa": "#8f5484"}),
}
FEATURES = ("skill:negation", "skill:arithmetic", "format:multiple choice", "domain:news", "domain:reviews")
METRICS = {"classification": "Classification-F1", "conditional generation": "Rouge-L", "qa": "ACC"}


def page_data(
    n_tasks: int = 12,
    encoder_layers: int = 2,
    decoder_layers: int = 1,
    n_experts: int = 3,
    n_runs: int = 2,
    samples: tuple[str, ...] = ("100_13",),
    n_correlations: int = 40,
    names: dict[int, str] | None = None,
) -> dict:
    """Returns the same data for the same arguments; names: {place: name} of tasks with a given name."""
    draw = random.Random(0)
    tasks = made_tasks(n_tasks, draw)
    for place, name in (names or {}).items():
        tasks[place]["name"] = name
    layers = [f"enc {n}" for n in range(encoder_layers)] + [f"dec {n}" for n in range(decoder_layers)]
    runs = [
        made_run(number, tasks, layers, n_experts, samples, n_correlations, draw) for number in range(n_runs)
    ]
    return {
        "title": "Routes of a made-up mixture of experts",
        "notes": ["Run 2 stopped at step 600 of 1000."] if n_runs > 1 else [],
        "categories": [
            {
                "name": name,
                "colour": colour,
                "subcategories": [{"name": sub, "colour": shade} for sub, shade in subs.items()],
            }
            for name, (colour, subs) in KINDS.items()
        ],
        "tasks": tasks,
        "runs": runs,
        "stability": [made_stability(layers, n_experts, draw)] if n_runs > 1 else [],
    }


def made_tasks(n_tasks: int, draw: random.Random) -> list[dict]:
    kinds = [(category, sub) for category, (_, subs) in KINDS.items() for sub in subs]
    tasks = []
    for number in range(n_tasks):
        category, sub = kinds[number * len(kinds) // n_tasks]
        features = [feature for feature in FEATURES if draw.random() < 0.4]
        name = f"{sub.replace(' ', '_')}-task_{number:03d}"
        tasks.append({"name": name, "category": category, "subcategory": sub, "features": features})
    return tasks


def made_run(number, tasks, layers, n_experts, samples, n_correlations, draw) -> dict:
    rows = list(range(len(tasks)))
    routes = [made_route(task, tasks, len(layers), n_experts, draw) for task in rows]
    return {
        "name": f"run {number + 1}",
        "folder": f"runs/{number + 1}",
        "step": 600 if number else 1000,
        "command": f"python -m routing_moe.cli.train --seed {number} --router_mode gumbel_softmax",
        "git": "0123abc" if number == 0 else None,
        "versions": {"torch": "2.6.0", "transformers": "5.4.0"},
        "settings": {
            "learning_rate": 3e-5, "num_experts": n_experts, "router_mode": "gumbel_softmax", "seed": number,
            "encoder_vanilla_layers": [0, 1], "warm": bool(number), "prefix": None,
        },
        "curves": made_curves(draw),
        "layers": layers,
        "experts": n_experts,
        "tasks": rows,
        "routes": routes,
        "order": rows[::2] + rows[1::2],
        "nearest": [made_nearest(row, routes, len(layers)) for row in rows],
        "scores": made_scores(tasks, samples, draw),
        "correlations": made_correlations(n_correlations, layers, n_experts, draw),
        "recovery": {
            "note": "Agreement of routes with the ontology; p by permutations of the tasks.",
            "rows": [
                ["category", len(tasks), 0.41, 0.002, 0.0042, 0.33, 0.001, 0.0041],
                ["subcategory", len(tasks), None, None, None, 0.28, 0.01, 0.021],
            ],
        },
        "ablation": made_ablation(tasks, layers, n_experts, draw),
        "predictions": made_predictions(tasks, draw),
    }  # fmt: skip


def made_route(task: int, tasks: list[dict], n_layers: int, n_experts: int, draw: random.Random) -> list[int]:
    """Returns weights; a large one depends on subcategory and layer, so that categories form blocks."""
    weights = []
    for layer in range(n_layers):
        preferred = (len(tasks[task]["subcategory"]) * (layer + 1)) % n_experts
        raw = [draw.random() ** 2 + (2.0 if expert == preferred else 0.0) for expert in range(n_experts)]
        weights += [round(10_000 * value / sum(raw)) for value in raw]
    return weights


def made_nearest(row: int, routes: list[list[int]], n_layers: int) -> list[list]:
    """Returns [[row, overlap], ...] of the twelve nearest."""
    overlaps = [sum(map(min, routes[row], other)) / 10_000 / n_layers for other in routes]
    others = sorted((n for n in range(len(routes)) if n != row), key=lambda n: -overlaps[n])
    return [[n, round(overlaps[n], 4)] for n in others[:12]]


def made_curves(draw: random.Random) -> list[dict]:
    steps = list(range(0, 1001, 20))
    down = [round(3.0 * 0.996**step + 0.2 + 0.2 * draw.random(), 4) for step in steps]
    dev_steps = steps[::5]
    up = [round(0.5 - 0.4 * 0.995**step + 0.03 * draw.random(), 4) for step in dev_steps]
    rate = [round(3e-5 * (1 - step / 1000), 8) for step in steps]
    norm = [round(value / 2, 3) for value in down]
    entropy = [round(1 - value, 4) for value in up]
    return [
        {"name": "train loss", "group": "loss", "steps": steps, "values": down},
        {"name": "dev loss", "group": "loss", "steps": dev_steps, "values": [*down[:50:5], None]},
        {"name": "dev score", "group": "score", "steps": dev_steps, "values": up},
        {"name": "route entropy", "group": "route", "steps": dev_steps, "values": entropy},
        {"name": "learning rate", "group": "optimizer", "steps": steps, "values": rate},
        {"name": "gradient norm", "group": "optimizer", "steps": steps, "values": norm},
    ]


def made_scores(tasks: list[dict], samples: tuple[str, ...], draw: random.Random) -> list[dict]:
    groups = []
    half = len(tasks) * 3 // 4
    for part in ("dev", "test"):
        for section, members in (("train", range(half)), ("test", range(half, len(tasks)))):
            rows = []
            for task in members:
                metric = METRICS[tasks[task]["category"]]
                constant = round(draw.random() * 0.3, 4) if metric != "Rouge-L" else None
                rows += [[task, sample, metric, round(draw.random(), 4), 32, constant] for sample in samples]
            groups.append({"part": part, "section": section, "rows": rows})
    return groups


def made_correlations(count: int, layers: list[str], n_experts: int, draw: random.Random) -> dict:
    rows = []
    for rank in range(count):
        p = round(10 ** (-8 + 8 * rank / count), 10)
        r = round((0.9 - 0.8 * rank / count) * draw.choice((-1, 1)), 3)
        feature = FEATURES[rank % len(FEATURES)]
        place = draw.randrange(len(layers)), draw.randrange(n_experts)
        rows.append([feature, *place, r, p, min(1.0, 3 * p), 20, min(1.0, 9 * p)])
    return {"note": "Pearson's r of having a feature with the weight of an expert, over tasks.", "rows": rows}


def made_ablation(tasks: list[dict], layers: list[str], n_experts: int, draw: random.Random) -> dict:
    tried = list(range(0, len(tasks), 2))
    drops = [[round(draw.gauss(0.01, 0.03), 4) for _ in tried] for _ in range(len(layers) * n_experts)]
    drops[0][0] = None
    return {
        "note": "Each expert's output was replaced by the mean of the others.",
        "part": "dev",
        "tasks": tried,
        "drops": drops,
        "features": [
            {
                "feature": "skill:negation",
                "experts": [[0, 1], [len(layers) - 1, 0]],
                "groups": [
                    ["with feature", 5, 0.061, 0.012, 0.009, 20, 0.05, 0.71, 0.68],
                    ["without feature", 7, 0.004, 0.01, None, 1, None, 0.4, 0.66],
                    ["qa", 3, -0.02, 0.01, 0.002, 20, 0.5, 0.5, 0.6],
                    ["all", 12, 0.03, 0.01, 0.004, 20, 0.1, 0.53, 0.67],
                ],
            },
            {
                "feature": "domain:news",
                "experts": [[1, 1]],
                "groups": [["with feature", 4, 0.05, None, None, 0, None, 0.9, None]],
            },
        ],
        "sets": [["enc0.1+dec0.0", 0.043, [[tried[1], 0.5], [tried[0], 0.125]]]],
    }


def made_predictions(tasks: list[dict], draw: random.Random) -> list[dict]:
    chosen = range(0, len(tasks), max(1, len(tasks) // 40))
    entries = []
    for task in chosen:
        samples = []
        for number in range(4):
            answers = ["entailment", "it follows"]
            prediction = " entailment " if number % 2 == 0 else draw.choice(["", "neutral"])
            text = f"premise: Example {number} of the task. " + "It is neither short nor long. " * (
                2 + 9 * number
            )
            samples.append(
                {
                    "input": text, "answers": answers, "prediction": prediction, "exact": number % 2 == 0,
                    "more_answers": 2 if number == 3 else 0,
                }
            )  # fmt: skip
        entries.append({"task": task, "part": "test", "samples": samples})
    return entries


def made_stability(layers: list[str], n_experts: int, draw: random.Random) -> dict:
    mapping = " ".join(f"{expert}→{(expert + 1) % n_experts}" for expert in range(n_experts))
    rows = [[layer, round(0.5 + 0.5 * draw.random(), 3), mapping] for layer in layers]
    return {"a": 0, "b": 1, "overlap": 0.72, "chance": 0.41, "p": 0.001, "permutations": 1000, "layers": rows}
