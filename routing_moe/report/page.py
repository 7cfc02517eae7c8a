"""The report page: one self-contained HTML file with linked charts (Altair) of the routes of runs.

    Path("report.html").write_text(render(read_runs(["models/moe"]), "Routes of moe"), encoding="utf-8")

Vega, Vega-Lite and vega-embed are written into the file. Its content security policy forbids all requests.
"""

import html
import itertools
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd
import vl_convert
from matplotlib.colors import to_hex

from dataloader.checksums import sha256
from dataloader.errors import InputError, in_short
from dataloader.jsonfile import load_json_object
from dataloader.task_splits import SECTIONS
from routing_moe.analysis.correlation import correlate
from routing_moe.analysis.route_metrics import ALL, dynamics_table, neighbour_table, overlap
from routing_moe.analysis.runs import ExplainedRun, notes_of
from routing_moe.analysis.saved_routes import best_step, expert_name, load_history, steps_with_routes
from routing_moe.io.csv_files import check_numbers, read_table
from routing_moe.io.job_folder import JOB_FILE
from routing_moe.io.run_folder import CURVES_FILE
from routing_moe.pictures.style import kind_colours
from routing_moe.results.scores import ScoresFile, read_scores

MARK = "#b35806"  # of what is chosen
HUES = ("#0b66a8", "#d97706", "#00765a", "#94458c", "#5a6270", "#7a6400")  # of runs
STEP = alt.Step(14)  # pixels of a task or an expert
IS_CHOSEN = "datum.task === chosen.task[0]"
NAMES = alt.Axis(labelLimit=230, domain=False, ticks=False)
NEAREST, STRONGEST, MOST_POINTS = 12, 3, 250  # shown of a task, of a feature, of a curve
CURVES = (  # besides dev_loss and dev_<measure>
    *("train_loss", "entropy", "load_entropy", "information", "distance_to_final", "temperature"),
    *("learning_rate", "grad_norm"),
)
# 'unsafe-eval': Vega compiles the expressions of a specification.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'"
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 16px; }}
td {{ padding: 2px 8px; overflow-wrap: anywhere; }}
.vega-embed {{ display: flex; flex-direction: column; }}
.vega-bindings {{ order: -1; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>A click on a cell of a map of routes chooses its task and its layer: the nearest tasks and the load of the
experts are those of the choice. Point at a mark to read its values.</p>
{notes}
<div id="charts"></div>
{tables}
<script>{library}</script>
<script type="application/json" id="spec">{spec}</script>
<script>
const spec = JSON.parse(document.getElementById("spec").textContent);
vegaEmbed("#charts", spec, {{renderer: "svg", actions: false}}).then(() => performance.mark("drawn"));
</script>
</body>
</html>
"""


def render(runs: Sequence[ExplainedRun], title: str) -> str:
    """Returns the page."""
    notes, tables = notes_of(runs), {"Origin": pd.DataFrame(map(origin, runs))}
    cells = {run.name: route_rows(run) for run in runs}
    first = {name: cells[runs[0].name][0][name] for name in ("task", "layer")}
    warnings.filterwarnings("ignore", "Automatically deduplicated", UserWarning)  # the maps share `chosen`
    chosen = alt.selection_point("chosen", fields=list(first), value=[first])
    maps = [route_map(run).add_params(chosen) for run in runs]
    charts = [
        alt.hconcat(categories(runs), *maps, spacing=4),
        alt.hconcat(*map(nearest, runs), *map(load, runs)),
        task_scores(pd.concat([scores_of(run) for run in runs]), runs),
        curves(runs),
    ]
    for run in runs:
        steps = steps_with_routes(run.place)
        if steps and run.routes.step != (best := best_step(run.place, steps)):
            notes.append(f"{run.name}: routes are of step {run.routes.step}, but scores of step {best}")
        table = correlate(run.routes, run.features, permutations=0)
        if len(table):
            charts.append(correlation_map(run.name, table))
        drops = drops_of(run)
        if len(drops):
            charts.append(drop_map(run.name, drops))
            overall = drops[drops["category"] == ALL].sort_values("drop", ascending=False)
            tables[f"{run.name}: the experts whose ablation costs most"] = overall.head(12)
    page = alt.vconcat(*(chart for chart in charts if chart), spacing=40).resolve_scale(color="independent")
    spec = json.dumps(page.to_dict() | {"datasets": cells}, allow_nan=False, separators=(",", ":"))
    version = ".".join(alt.SCHEMA_VERSION.strip("v").split(".")[:2])
    text = PAGE.format(
        policy=POLICY,
        title=html.escape(title),
        notes="".join(f"<p>{html.escape(note)}</p>" for note in notes),
        tables="".join(f"<h2>{html.escape(name)}</h2>{table.to_html()}" for name, table in tables.items()),
        library=vl_convert.javascript_bundle(vl_version=version),
        spec=spec.replace("<", "\\u003c"),  # "</script>" would end the data early
    )
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair has no UTF-8


# ---- what the run folders have


def route_rows(run: ExplainedRun) -> list[dict]:
    routes, rows = run.routes, []
    for (n, row, expert), weight in np.ndenumerate(routes.values_NLE):
        task, layer = routes.tasks[n], routes.layers[row]
        place = {"task": task, "category": run.ontology.category(task)[0], "layer": layer}
        rows.append(place | {"expert": expert_name(layer, expert), "weight": round(float(weight), 4)})
    return rows


def scores_of(run: ExplainedRun) -> pd.DataFrame:
    """Returns the scores of the best checkpoint: a row per sample and kind of files."""
    tables = []
    for section, part in itertools.product(SECTIONS, ("test", "dev")):
        path = run.place / ScoresFile(part, section).path
        if path.is_file():
            tables.append(read_scores(path).assign(files=f"{part}, {section} tasks", run=run.name))
    rows = pd.concat(tables) if tables else pd.DataFrame()
    return rows.rename(columns={"task_prefix": "task", "performance": "score"})


def drops_of(run: ExplainedRun) -> pd.DataFrame:
    """Returns categories.csv of `routing-moe ablate`; empty without one, and if it is of other weights."""
    folder = run.place / "analysis" / "ablation"
    if not (folder / "categories.csv").is_file():
        return pd.DataFrame()
    job = load_json_object(folder / JOB_FILE, "the settings of the ablation")
    for name, checksum in (job.get("checkpoint") or {}).items():
        weights = run.place / str(job.get("checkpoint_name")) / name
        if weights.is_file() and sha256(weights) != checksum:
            return pd.DataFrame()
    table = read_table(folder / "categories.csv", keep_default_na=False, na_values=[""])
    if lacking := {"layer", "expert", "category", "drop"} - set(table):
        raise InputError(f"{folder / 'categories.csv'} has no column {min(lacking)}; ablate again")
    names = [expert_name(row.layer, row.expert) for row in table.itertuples()]
    return table.assign(expert=names).drop(columns="layer")


def origin(run: ExplainedRun) -> dict:
    path = run.place / "run.json"
    described = load_json_object(path, "the description of a run") if path.is_file() else {}
    saved = {name: described.get(name) for name in ("git", "command")}
    return {"run": run.name, "folder": str(run.place), "step": run.routes.step} | saved


def curve_rows(run: ExplainedRun) -> list[dict]:
    """Returns a row per curve and step of losses, dev scores, statistics of routes and optimizer."""
    tables = [read_curves(run.place / "losses.csv", "steps"), read_curves(run.place / CURVES_FILE, "step")]
    if len(steps_with_routes(run.place)) > 1:
        dynamics = dynamics_table(load_history(run.place, run.routes.kind))
        tables.insert(1, dynamics[dynamics["layer"] == ALL].set_index("step"))
    rows = []
    for table in tables:
        thinned = table.iloc[:: max(1, -(-len(table) // MOST_POINTS))]
        for name in [name for name in table if name in CURVES or name.startswith("dev_")]:
            values = thinned[name].replace([np.inf, -np.inf], np.nan).dropna()
            start = {"run": run.name, "curve": name.replace("_", " ")}
            rows += [start | {"step": int(n), "value": float(f"{value:.5g}")} for n, value in values.items()]
    return rows


def read_curves(path: Path, steps: str) -> pd.DataFrame:
    """Returns the numbers by step; empty if the file is missing or still empty."""
    if not path.is_file() or not path.stat().st_size:
        return pd.DataFrame()
    table = read_table(path)
    if steps not in table:
        raise InputError(f"{path} has no column {steps} (it has {in_short(list(map(str, table)))})")
    check_numbers(table, table, path)
    return table.astype(float).dropna(subset=[steps]).set_index(steps)


# ---- charts


def chart_of(rows: str | list[dict] | pd.DataFrame, title: str = "") -> alt.Chart:
    """Returns a chart without marks. rows: the name of a run stands for `route_rows`."""
    if isinstance(rows, pd.DataFrame):
        rows = rows.astype(object).where(rows.notna(), None).to_dict("records")
    data = alt.NamedData(rows) if isinstance(rows, str) else alt.Data(values=rows)
    return alt.Chart(data, title=alt.Title(title, anchor="start"))


def of_run(runs: Sequence[ExplainedRun]) -> alt.Color:
    scale = alt.Scale(domain=[run.name for run in runs], range=HUES)
    return alt.Color("run:N", scale=scale, legend=alt.Legend(orient="top", title=None, labelLimit=300))


def all_tasks(runs: Sequence[ExplainedRun]) -> list[str]:
    return runs[0].ontology.order({task for run in runs for task in run.routes.tasks})


def colours(runs: Sequence[ExplainedRun]) -> alt.Scale:
    by_kind = kind_colours(runs[0].ontology)
    kinds = [kind for kind, subcategory in by_kind if not subcategory]
    return alt.Scale(domain=kinds, range=[to_hex(by_kind[kind, ""]) for kind in kinds])


def categories(runs: Sequence[ExplainedRun]) -> alt.Chart:
    """Returns the strip of categories beside the maps, with the names of the tasks."""
    tasks = all_tasks(runs)
    kinds = [runs[0].ontology.category(task) for task in tasks]
    rows = [{"task": t, "category": kind, "kind": sub} for t, (kind, sub) in zip(tasks, kinds, strict=True)]
    color = alt.Color("category:N", scale=colours(runs), legend=alt.Legend(orient="left", labelLimit=230))
    y = alt.Y("task:N", sort=tasks, title=None, axis=NAMES)
    strip = chart_of(rows).mark_rect().encode(y=y, color=color, tooltip=["task:N", "category:N", "kind:N"])
    return strip.properties(width=8, height=STEP)


def expert_map(rows: str | pd.DataFrame, title: str, y: alt.Y, field: str, *tooltip) -> alt.Chart:
    """Returns cells over the experts, in the order of the rows; a field of a table has a scale around 0."""
    scale = alt.Scale(domain=[0, 0.5, 1], range=["#f7fbff", "#6baed6", "#08306b"])
    if isinstance(rows, pd.DataFrame):
        most = float(rows[field].abs().max()) or 1.0
        scale = alt.Scale(scheme="blueorange", domain=[-most, most])
    cells = (
        chart_of(rows, title).mark_rect(strokeWidth=1).encode(x=alt.X("expert:N", sort=None, title=None), y=y)
    )
    cells = cells.encode(color=alt.Color(f"{field}:Q", scale=scale), tooltip=["expert:N", *tooltip])
    return cells.properties(width=STEP, height=STEP)


def route_map(run: ExplainedRun) -> alt.Chart:
    """Returns tasks by experts; a click chooses a task and a layer."""
    y, about = alt.Y("task:N", sort=all_tasks([run]), axis=None), ("task:N", "category:N", "weight:Q")
    chart = expert_map(run.name, f"Routes of {run.routes.titled}", y, "weight", *about)
    return chart.encode(stroke=alt.condition(IS_CHOSEN, alt.value(MARK), alt.value("white")))


def bars(base: alt.Chart, x: str, title: str, y: alt.Y, color, *tooltip) -> alt.Chart:
    x = alt.X(x, scale=alt.Scale(domain=[0, 1]), title=title)
    chart = base.mark_bar().encode(x=x, y=y, color=color, tooltip=list(tooltip))
    return chart.properties(width=150, height=STEP)


def nearest(run: ExplainedRun) -> alt.Chart:
    """Returns the tasks whose routes overlap most with those of the chosen task."""
    table = neighbour_table(run.routes, overlap(run.routes.values_NLE), run.ontology, NEAREST).round(4)
    base = chart_of(table[["task", "neighbour", "overlap"]], f"Nearest tasks in {run.name}")
    y, about = alt.Y("neighbour:N", sort="-x", title=None, axis=NAMES), ("task:N", "neighbour:N", "overlap:Q")
    title, color = "overlap with the chosen task", alt.value(HUES[0])
    return bars(base.transform_filter(IS_CHOSEN), "overlap:Q", title, y, color, *about)


def load(run: ExplainedRun) -> alt.Chart:
    """Returns the mean weight of each expert of the chosen layer over tasks, divided by category."""
    base = chart_of(run.name, f"Load in {run.name}").transform_filter("datum.layer === chosen.layer[0]")
    base = base.transform_calculate(share=f"datum.weight / {len(run.routes.tasks)}")
    color = alt.Color("category:N", scale=colours([run]), legend=None)
    about = ("expert:N", "category:N", alt.Tooltip("sum(share):Q", format=".4f"))
    y, title = alt.Y("expert:N", title=None), "mean weight in the chosen layer"
    return bars(base, "sum(share):Q", title, y, color, *about)


def task_scores(scores: pd.DataFrame, runs: Sequence[ExplainedRun]) -> alt.LayerChart | None:
    """Returns the score of every task in each run (mean over samples), and that of a constant answer."""
    if scores.empty:
        return None
    rows = scores.groupby(["run", "files", "task", "metric"], sort=False)[["score", "constant"]].mean()
    rows, files = rows.round(4).reset_index(), list(scores["files"].unique())
    choice = alt.param("files", value=files[0], bind=alt.binding_select(options=files, name="files: "))
    base = chart_of(rows, "Scores of the best checkpoints; ticks: the same answer to all examples")
    base = base.transform_filter("datum.files === files")
    x = alt.X("task:N", sort=runs[0].ontology.order(set(scores["task"])), title=None)
    tooltip = ["run:N", "task:N", "metric:N", "score:Q", "constant:Q"]
    dots = base.mark_point(filled=True, size=50).encode(x=x, y="score:Q", color=of_run(runs), tooltip=tooltip)
    ticks = base.mark_tick(color="#555").encode(x=x, y=alt.Y("constant:Q", title="score"))
    line = base.transform_filter(IS_CHOSEN).mark_rule(color=MARK, opacity=0.5).encode(x=x)
    return alt.layer(line, ticks, dots).add_params(choice).properties(width=STEP, height=220)


def curves(runs: Sequence[ExplainedRun]) -> alt.ConcatChart | None:
    rows, charts = [row for run in runs for row in curve_rows(run)], []
    y, tooltip = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)), ["run:N", "step:Q", "value:Q"]
    for name in dict.fromkeys(row["curve"] for row in rows):
        line = chart_of([row for row in rows if row["curve"] == name], name).mark_line(point=True)
        line = line.encode(x="step:Q", y=y, color=of_run(runs), tooltip=tooltip)
        charts.append(line.properties(width=280, height=130))
    return alt.concat(*charts, columns=3) if charts else None


def correlation_map(name: str, table: pd.DataFrame) -> alt.Chart:
    """Returns features by experts: the strongest correlations of each feature."""
    rows = table.groupby("feature").head(STRONGEST).sort_values(["layer", "expert"])  # in order of |r|
    rows["expert"] = [expert_name(row.layer, row.expert) for row in rows.itertuples()]
    title = f"{name}: the {STRONGEST} strongest correlations of each feature with weights"
    y, r = alt.Y("feature:N", title=None, axis=NAMES), alt.Tooltip("r:Q", format=".3g")
    return expert_map(rows[["feature", "expert", "r"]], title, y, "r", "feature:N", r)


def drop_map(name: str, rows: pd.DataFrame) -> alt.Chart:
    """Returns mean drops by ablation, categories by experts."""
    title = f"{name}: mean drop of the score when an expert is ablated"
    y = alt.Y("category:N", sort=[ALL, *dict.fromkeys(rows["category"])], title=None, axis=NAMES)
    about = ("category:N", "drop:Q", "others:Q", "tasks:Q")
    return expert_map(rows, title, y, "drop", *about)
