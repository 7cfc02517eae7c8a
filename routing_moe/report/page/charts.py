"""The charts of the report page, with Altair: one Vega-Lite specification each.

Charts read two signals, the chosen task and the chosen layer; linked.js sets both in all charts after a click
on a mark that has a task or a layer. Rows of "tasks" are found by name: the page has them once.
"""

from __future__ import annotations

import json

import altair as alt
import pandas as pd

from routing_moe.report.data import UNIT
from routing_moe.results.scores import BASELINES, MEASURE_COLUMNS, with_values

ROW = 14  # pixels: height of a task
NAMES = 230  # pixels of a task's name
MARK = "#b35806"  # of what is chosen
HUES = ("#0b66a8", "#d97706", "#00765a", "#94458c", "#5a6270", "#7a6400")  # of runs
TASKS = alt.NamedData("tasks")
CHOSEN = "datum.task === chosen_task"


def charts(data: dict) -> dict[str, dict]:
    """Returns {name: specification} of the charts that have something to show."""
    runs, tasks = data["runs"], [row["task"] for row in data["tasks"]]
    task, layer = tasks[0], runs[0]["layers"][0]
    choices = [alt.param("chosen_task", value=task), alt.param("chosen_layer", value=layer)]
    made = {
        "routes": route_maps(data),
        "nearest": nearest(runs),
        "load": load(data),
        "scores": task_scores(data["scores"], tasks),
        "curves": curves(runs),
        "correlations": correlation_maps(runs),
        "ablation": drop_maps(data),
    }
    specs = {}
    for name, chart in made.items():
        if chart is not None:
            chart = chart.add_params(*choices).configure_view(stroke=None).configure_concat(spacing=24)
            specs[name] = chart.to_dict()
            specs[name]["datasets"] = {}  # filled in by the page
    return specs


def chart_of(rows: list[dict]) -> alt.Chart:
    return alt.Chart(alt.Data(values=rows))


def with_task(chart: alt.Chart, *fields: str, task: str = "task") -> alt.Chart:
    """Returns the chart with fields of "tasks". task: the field that has its name."""
    tasks = alt.LookupData(TASKS, key="task", fields=list(fields))
    return chart.transform_lookup(lookup=task, from_=tasks)


# ---------------------------------------------------------------------------- maps over the experts of a run


def in_columns(chart: alt.Chart, run: dict, values: str) -> alt.Chart:
    """Returns the chart with a row for each expert of `run`. values: the field with a list over experts."""
    columns = f"sequence({len(run['layers']) * run['experts']})"
    chart = chart.transform_calculate(column=columns).transform_flatten([values, "column"])
    return named_columns(chart, run)


def named_columns(chart: alt.Chart, run: dict) -> alt.Chart:
    """Returns the chart with layer, expert and the right end of the cell for each `column`."""
    layers = json.dumps(run["layers"])
    return chart.transform_calculate(
        layer=f"{layers}[floor(datum.column / {run['experts']})]",
        expert=f"datum.column % {run['experts']}",
        end="datum.column + 1",
    )


def cells(chart: alt.Chart, y: alt.Y, colour: alt.Color, *tooltip: alt.Tooltip) -> alt.Chart:
    place = [alt.Tooltip("layer:N"), alt.Tooltip("expert:N")]
    return chart.mark_rect(stroke="white", strokeWidth=0.3).encode(
        x=alt.X("column:Q", axis=None), x2="end:Q", y=y, color=colour, tooltip=[*place, *tooltip]
    )


def over_experts(run: dict, *marks: alt.Chart) -> alt.LayerChart:
    """Returns a map whose columns are the run's experts, below the names of the layers."""
    experts, columns = run["experts"], len(run["layers"]) * run["experts"]
    spans = [
        {"layer": name, "start": n * experts, "middle": (n + 0.5) * experts, "end": (n + 1) * experts}
        for n, name in enumerate(run["layers"])
    ]
    scale = alt.Scale(domain=[0, columns], nice=False)
    layers = chart_of(spans)
    outline = layers.transform_filter("datum.layer === chosen_layer")
    outline = outline.mark_rect(filled=False, stroke=MARK, strokeWidth=2)
    colour = alt.condition("datum.layer === chosen_layer", alt.value(MARK), alt.value("black"))
    names = layers.mark_text(fontSize=10, cursor="pointer").encode(
        y=alt.value(-9), text="layer:N", color=colour
    )
    return alt.layer(
        *marks,
        layers.mark_rule(color="#888", strokeWidth=0.8).encode(x=alt.X("start:Q", axis=None, scale=scale)),
        outline.encode(x=alt.X("start:Q", axis=None), x2="end:Q"),
        names.encode(x=alt.X("middle:Q", axis=None)),
        title=alt.Title(run["name"], anchor="start"),
        width=min(24, max(10, 32 / experts, 384 / columns)) * columns,  # pixels; 32: a layer's name
    )


def route_maps(data: dict) -> alt.HConcatChart:
    """Returns a map of routes for each run, tasks by experts; the first has the names of the tasks."""
    runs = data["runs"]
    labels = ["category", *(f"similarity of routes in {run['name']}" for run in runs)]
    choice = alt.binding_select(options=list(range(len(labels))), labels=labels, name="order of tasks: ")
    order = alt.param("order", value=0, bind=choice)
    routed = {row["task"] for run in runs for row in run["routes"]}
    names = json.dumps(sorted(routed))
    rows = alt.Chart(TASKS).transform_filter(f"indexof({names}, datum.task) >= 0")
    rows = rows.transform_calculate(rank="datum.ranks[order]")
    y = alt.Y("task:N", axis=None, sort=alt.EncodingSortField("rank", op="min"))
    about = [alt.Tooltip(f"{field}:N") for field in ("task", "category", "subcategory")]
    maps = []
    for number, run in enumerate(runs):
        weights = with_task(chart_of(run["routes"]), "category", "subcategory", "ranks")
        weights = in_columns(weights, run, "weights")
        weights = weights.transform_calculate(weight=f"datum.weights / {UNIT}", rank="datum.ranks[order]")
        shades = alt.Scale(domain=[0, 0.5, 1], range=["#f7fbff", "#6baed6", "#08306b"])
        colour = alt.Color("weight:Q", scale=shades, legend=alt.Legend(orient="bottom"))
        weight = alt.Tooltip("weight:Q", format=".4f")
        outline = rows.transform_filter(CHOSEN).mark_rect(filled=False, stroke=MARK, strokeWidth=2)
        marks = [cells(weights, y, colour, weight, *about), outline.encode(y=y)]
        for field, left in (("colour", -16), ("shade", -8)):
            strip = rows.mark_rect().encode(y=y, x=alt.value(left), x2=alt.value(left + 7))
            tooltip = [*about, alt.Tooltip("features:N")]
            marks.append(strip.encode(fill=alt.Fill(f"{field}:N", scale=None), tooltip=tooltip))
        if number == 0:
            text = rows.mark_text(align="right", fontSize=11, limit=NAMES, cursor="pointer")
            colour = alt.condition(CHOSEN, alt.value(MARK), alt.value("black"))
            marks.append(text.encode(y=y, x=alt.value(-21), text="task:N", color=colour))
        maps.append(over_experts(run, *marks).properties(height=ROW * len(routed)))
    return alt.hconcat(*maps).add_params(order).resolve_scale(color="shared")


def correlation_maps(runs: list[dict]) -> alt.HConcatChart | None:
    """Returns a map of features by experts for each run; dots mark q < 0.05."""
    maps = []
    for run in runs:
        if not run["correlations"]:
            continue
        rows = run["correlations"]["rows"]
        features = list(dict.fromkeys(row["feature"] for row in rows))
        most = max(abs(row["r"]) for row in rows)
        base = named_columns(chart_of(rows), run)
        y = alt.Y("feature:N", sort=features, title=None, axis=alt.Axis(labelLimit=NAMES))
        r = alt.Color("r:Q", scale=alt.Scale(scheme="blueorange", domain=[-most, most]))
        fields = [alt.Tooltip("feature:N"), alt.Tooltip("r:Q"), alt.Tooltip("p:Q"), alt.Tooltip("q:Q")]
        fields += [alt.Tooltip("q_by:Q", title="q (BY)"), alt.Tooltip("tasks:Q")]
        dots = base.transform_filter("datum.q < 0.05").transform_calculate(middle="datum.column + 0.5")
        dots = dots.mark_circle(size=12, color="black").encode(
            x=alt.X("middle:Q", axis=None), y=y, tooltip=fields
        )
        chart = over_experts(run, cells(base, y, r, *fields), dots)
        maps.append(chart.properties(height=ROW * len(features)))
    return alt.hconcat(*maps).resolve_scale(color="independent") if maps else None


def drop_maps(data: dict) -> alt.HConcatChart | None:
    """Returns a map of mean drops of each ablated run: categories, and the chosen task, by experts."""
    maps = []
    categories = [category["name"] for category in data["categories"]]
    for run in data["runs"]:
        if not run["ablation"]:
            continue
        tasks = [data["tasks"][number]["task"] for number in run["ablation"]["tasks"]]
        drops = zip(*run["ablation"]["drops"], strict=True)
        rows = [{"task": task, "drop": list(row)} for task, row in zip(tasks, drops, strict=True)]
        most = largest_mean(rows, data["tasks"])
        groups = "['all tasks', datum.category"
        groups = f"{CHOSEN} ? {groups}, 'chosen task'] : {groups}]"
        base = with_task(chart_of(rows), "category").transform_calculate(group=groups)
        base = in_columns(base.transform_flatten(["group"]), run, "drop")
        base = base.transform_filter("isValid(datum.drop)").transform_aggregate(
            mean="mean(drop)", largest="max(drop)", tasks="count()",
            groupby=["group", "column", "end", "layer", "expert"],
        )  # fmt: skip
        y = alt.Y("group:N", sort=["all tasks", *categories, "chosen task"], title=None)
        scale = alt.Scale(scheme="blueorange", domain=[-most, most], clamp=True)
        colour = alt.Color("mean:Q", title="mean drop", scale=scale)
        fields = [alt.Tooltip("group:N"), alt.Tooltip("mean:Q", format=".4f")]
        fields += [alt.Tooltip("largest:Q", format=".4f"), alt.Tooltip("tasks:Q")]
        chart = over_experts(run, cells(base, y, colour, *fields))
        maps.append(chart.properties(height=20 * (len(categories) + 2)))
    return alt.hconcat(*maps).resolve_scale(color="independent") if maps else None


def largest_mean(rows: list[dict], tasks: list[dict]) -> float:
    """Returns the largest size of a mean drop over the tasks of a category, for the scale; 1 if all are 0."""
    drops = pd.DataFrame([row["drop"] for row in rows], index=[row["task"] for row in rows], dtype=float)
    means = drops.groupby({row["task"]: row["category"] for row in tasks}).mean()
    return float(means.abs().max().max()) or 1.0


# ---------------------------------------------------------------------------- bars and lines


def of_run(runs: list[dict]) -> alt.Color:
    names = [run["name"] for run in runs]
    hues = [HUES[place % len(HUES)] for place in range(len(names))]
    scale = alt.Scale(domain=names, range=hues)
    return alt.Color("run:N", scale=scale, legend=alt.Legend(orient="top", title=None, labelLimit=300))


def nearest(runs: list[dict]) -> alt.VConcatChart:
    """Returns the tasks whose routes overlap most with those of the chosen task, in each run."""
    parts = []
    for run in runs:
        base = with_task(chart_of(run["nearest"]).transform_filter(CHOSEN), "shade", task="other")
        bars = base.mark_bar().encode(
            x=alt.X("overlap:Q", scale=alt.Scale(domain=[0, 1]), title="overlap of routes"),
            y=alt.Y("other:N", sort="-x", title=None, axis=alt.Axis(labelLimit=NAMES)),
            color=alt.Color("shade:N", scale=None),
            tooltip=["other:N", alt.Tooltip("overlap:Q", format=".4f")],
        )
        title = alt.Title(alt.ExprRef("'Nearest to ' + chosen_task"), subtitle=run["name"], anchor="start")
        parts.append(bars.properties(title=title, width=150, height=alt.Step(ROW)))
    return alt.vconcat(*parts)


def load(data: dict) -> alt.VConcatChart:
    """Returns the mean weight of each expert of the chosen layer over tasks, divided by category."""
    categories = data["categories"]
    names, colours = ([row[field] for row in categories] for field in ("name", "colour"))
    parts = []
    for run in data["runs"]:
        base = in_columns(with_task(chart_of(run["routes"]), "category"), run, "weights")
        base = base.transform_filter("datum.layer === chosen_layer")
        base = base.transform_calculate(share=f"datum.weights / {UNIT * len(run['routes'])}")
        bars = base.mark_bar().encode(
            x=alt.X("sum(share):Q", scale=alt.Scale(domain=[0, 1]), title="mean weight over tasks"),
            y=alt.Y("expert:N"),
            color=alt.Color("category:N", scale=alt.Scale(domain=names, range=colours), legend=None),
            tooltip=["layer:N", "expert:N", "category:N", alt.Tooltip("sum(share):Q", format=".4f")],
        )
        title = alt.Title(alt.ExprRef("'Load of the experts of ' + chosen_layer"), subtitle=run["name"])
        title.anchor = "start"
        parts.append(bars.properties(title=title, width=300, height=alt.Step(ROW + 4)))
    return alt.vconcat(*parts)


def task_scores(scores: pd.DataFrame, tasks: list[str]) -> alt.LayerChart | None:
    """Returns the score of every task in each run (mean over samples), and that of a constant answer."""
    scores = scores.dropna(subset=["score"])
    if scores.empty:
        return None
    others = ["constant", *with_values(scores, (*BASELINES[1:], *MEASURE_COLUMNS))]
    means = scores.groupby(["run", "files", "task", "metric"], sort=False)[["score", *others]].mean()
    rows = means.round(4).astype(object).where(means.notna(), None).reset_index().to_dict("records")
    files = list(dict.fromkeys(scores["files"]))
    choice = alt.param("files", value=files[0], bind=alt.binding_select(options=files, name="files: "))
    base = chart_of(rows).transform_filter("datum.files === files")
    x = alt.X("task:N", sort=tasks, title=None, axis=alt.Axis(labelAngle=-60, labelLimit=NAMES))
    names = [{"name": name} for name in dict.fromkeys(scores["run"])]
    dots = base.mark_point(filled=True, size=50).encode(
        x=x, y=alt.Y("score:Q", title="score"), color=of_run(names),
        tooltip=["run:N", "task:N", "metric:N", "score:Q", *(f"{name}:Q" for name in others)],
    )  # fmt: skip
    ticks = base.mark_tick(color="#555").encode(x=x, y=alt.Y("constant:Q", title="score"))
    line = base.transform_filter(CHOSEN).mark_rule(color=MARK, strokeWidth=2, opacity=0.5).encode(x=x)
    return alt.layer(line, ticks, dots).add_params(choice).properties(width=alt.Step(ROW), height=220)


def curves(runs: list[dict]) -> alt.ConcatChart | None:
    """Returns a chart for each kind of curve, with a line for each run."""
    panels: dict[str, list[dict]] = {}
    for run in runs:
        for curve in run["curves"]:
            panels.setdefault(curve["curve"], []).append({"run": run["name"], **curve})
    charts = []
    for name, rows in panels.items():
        base = chart_of(rows).properties(title=name, width=330, height=150)
        base = base.transform_flatten(["steps", "values"], ["step", "value"])
        base = base.encode(
            x=alt.X("step:Q", title="step"),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            color=of_run(runs),
            tooltip=["run:N", "step:Q", "value:Q"],
        )
        charts.append(base.mark_line(strokeWidth=1.5) + base.mark_point(filled=True, size=12, opacity=1))
    return alt.concat(*charts, columns=3) if charts else None
