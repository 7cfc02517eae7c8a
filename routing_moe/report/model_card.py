"""The model card of a shared run, README.md, from the files in its folder alone."""

import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from dataloader.errors import InputError, counted
from dataloader.jsonfile import load_json_object
from routing_moe.analysis.route_metrics import layer_table
from routing_moe.analysis.runs import ontology_of
from routing_moe.analysis.saved_routes import load_routes
from routing_moe.config.choices import MEASURES
from routing_moe.model.configuration import RoutingBartConfig
from routing_moe.pictures.heat_maps import plot_routes
from routing_moe.pictures.style import save
from routing_moe.report.shared_run import PICTURE
from routing_moe.results.markdown import markdown_table
from routing_moe.results.run_cost import in_units, read_cost
from routing_moe.results.scores import BASELINES, ScoresFile, read_scores, with_values
from routing_moe.task_choice.texts import TEXTS_FILE

GENERATION = "text2text-generation"
NO_ROUTES = "No task has a route of its own."
TITLES = {"train": "Train tasks", "test": "Unseen tasks"}  # by section of the split
CARD = """\
# {title}

{description}

## Use

```python
from routing_moe import Routed
model = Routed.load("{name}")
task = model.task({task})
print(task)
model.answer(task, ["..."])
```

The class is in the package `routing-moe`; no file here is a pickle. The name stands for a run folder:

```bash
routing-moe train --do_predict --checkpoint {name} --train_dir GYM --output_dir OUT
routing-moe train --do_train --checkpoint {name} --train_dir GYM --output_dir OUT
routing-moe finetune --do_train {start} --task_dir GYM/TASK --output_dir OUT
```

## Scores

Test files; n: examples. Without a model: always the most frequent training answer (constant), a random option
(chance), the input (copy). Other texts are untested, and answers can be wrong.

{scores}

## Routes

{routes}

## Training

{training}

## Data and licences

{terms}

Method: Ye, Zha, Ren, [Eliciting and Understanding Cross-task Skills with Task-level
Mixture-of-Experts](https://arxiv.org/abs/2205.12701), Findings of EMNLP 2022.
"""


def write_card(folder: Path, name: str, license: str | None, sources: dict[str, tuple[str, str]]) -> None:
    """Writes README.md and the picture of routes into the folder of a shared run.

    name: owner/name. sources: {task: (source, terms of use)} of the data.
    """
    config, path = RoutingBartConfig.load(folder), folder / "run.json"
    run = load_json_object(path, "the description of a run") if path.is_file() else {}
    scores = {section: folder / ScoresFile(section=section).path for section in TITLES}
    scores = {section: read_scores(file) for section, file in scores.items() if file.is_file()}
    tasks = {*config.trained_tasks, *(task for table in scores.values() for task in table["task_prefix"])}
    sources = {task: source for task, source in sources.items() if task in tasks}
    base, title = run.get("settings", {}).get("model"), name.split("/")[1]
    data = ModelCardData(
        library_name="routing-moe",
        tags=["bart", "mixture-of-experts", "multi-task", GENERATION],
        base_model=base if base in (run.get("hub") or {}) else None,
        license=license,
        datasets=sorted({*re.findall(r"hub data set ([\w.-]+/[\w.-]+)", str(list(sources.values())))})
        or None,
        model_name=title,
        eval_results=[result(section, row) for section in scores for row in scores[section].itertuples()]
        or None,
    )
    text = CARD.format(
        title=title,
        name=name,
        description=description(config),
        task=task_of_texts(config, (folder / TEXTS_FILE).is_file()),
        start=f"--checkpoint {name}" if config.num_experts == 1 else f"--moe_init --init_dir {name}",
        scores="\n\n".join(f"{TITLES[section]}: {score_table(scores.get(section))}" for section in TITLES),
        routes=routes(folder, title) if config.routes_by_task else NO_ROUTES,
        training=training(run, read_cost(folder)),
        terms=terms_of_use(license, sources, tasks),
    )
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}", ignore_metadata_errors=True).save(folder / "README.md")


def result(section: str, row) -> EvalResult:
    return EvalResult(
        task_type=GENERATION, task_name=TITLES[section], dataset_type=row.task_prefix,
        dataset_name=row.sample, dataset_split="test", metric_type=row.metric, metric_name=row.metric,
        metric_value=round(row.performance, 4),
    )  # fmt: skip


def description(config: RoutingBartConfig) -> str:
    tasks = counted(len(config.trained_tasks), "task") if config.trained_tasks else "tasks not recorded here"
    what = f"A BART with {config.encoder_layers} encoder and {config.decoder_layers} decoder layers"
    if config.num_experts == 1:
        return f"{what}, trained on {tasks}."
    routed = f"{config.experts_described} in {len(config.routed_layers)} of them"
    return f"{what}, {routed}, trained on {tasks}. Routes: {config.route_source}."


def task_of_texts(config: RoutingBartConfig, has_texts: bool) -> str:
    """Returns the arguments of `Routed.task` that this model can answer with."""
    if config.num_experts == 1 or config.route_source == "average":
        return '"my_task"'
    if not config.routes_by_task:
        return '"my_task", examples=examples'  # pairs of an input and its answer
    known = [task for task in config.trained_tasks if task in config.task_names]
    return '"my_task", inputs=texts' if has_texts or not known else f'"{min(known)}"'


def score_table(table) -> str:
    if table is None:
        return "not scored."
    columns = {"metric": "metric", "performance": "score", "n": "n"}
    columns |= {name: name.replace("_", " ") for name in with_values(table, (*BASELINES, *MEASURES[1:]))}
    columns |= {"route": "route", "vector_seen": "has seen of the task"}
    cells = table.set_index("sample")[[name for name in columns if name in table]].rename(columns=columns)
    texts = cells.select_dtypes(exclude="number").columns
    cells[texts] = cells[texts].fillna("-").map(lambda text: str(text).replace("|", "\\|"))
    listed = markdown_table(cells.astype({"n": int}).rename_axis("task"))
    return f"mean {table['performance'].mean():.3f} over {counted(len(table), 'test file')}\n\n{listed}"


def routes(folder: Path, title: str) -> str:
    """Draws the routes of the train tasks; returns the section on them."""
    try:
        saved, ontology = load_routes(folder), ontology_of(folder, {}, None)
    except InputError:
        return NO_ROUTES
    saved = saved.of(ontology.order(saved.tasks))
    figure = plot_routes(saved.values_NLE, saved.tasks, saved.layers, ontology)
    save(figure, folder / PICTURE, f"Routes of {title}")
    loads = layer_table(saved).set_index("layer").filter(regex=r"^load_\d").rename(columns=lambda n: n[5:])
    return (
        f"![Routes]({PICTURE})\n\nThe weights of the experts (columns) for each train task (rows), and their "
        f"means over the tasks:\n\n{markdown_table(loads)}"
    )


def training(run: dict, cost: dict | None) -> str:
    """Returns command, commit and costs, of which each may be unknown."""
    rows = {"commit": run.get("git") or "unknown", "seed": run.get("settings", {}).get("seed", "unknown")}
    rows |= run.get("versions") or {}
    if cost:
        rows["parameters"] = " active of ".join(
            in_units(cost[f"{n}_parameters"]) for n in ("active", "total")
        )
        rows["steps"] = f"{cost['steps']} of {cost['examples_per_step']} examples"
        rows["training FLOPs"] = in_units(cost["total_flops"])
    table = markdown_table({name: {"": str(value)} for name, value in rows.items()})
    return f"```bash\n{run.get('command') or 'unknown'}\n```\n\n{table}"


def terms_of_use(license: str | None, sources: dict[str, tuple[str, str]], tasks: set[str]) -> str:
    known = {task: terms for task, (_, terms) in sources.items() if terms}
    lines = [f"Weights: {license or 'no licence is stated; those of the base model and of the data apply'}."]
    lines += [
        f"- {terms}: {', '.join(t for t in known if known[t] == terms)}"
        for terms in dict.fromkeys(known.values())
    ]
    unknown = len(tasks) - len(known)
    return "\n".join([*lines, f"- not recorded: {counted(unknown, 'task')}"] if unknown else lines)
