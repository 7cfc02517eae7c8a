"""The model card of a shared run: README.md with metadata that the hub reads. What is unknown, it says."""

from __future__ import annotations

import re

import pandas as pd
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from dataloader.errors import counted
from routing_moe.analysis.route_tables import layer_table
from routing_moe.config.choices import MEASURES
from routing_moe.config.push import PushSettings
from routing_moe.report.shared_run import PICTURE, SharedRun, data_sources
from routing_moe.results.markdown import markdown_table
from routing_moe.results.run_cost import in_units
from routing_moe.results.scores import BASELINES, with_values
from routing_moe.task_choice.texts import TEXTS_FILE

GENERATION = "text2text-generation"
TITLES = {"train": "Train tasks", "test": "Unseen tasks"}  # by section of the split
# The hub's names of metrics.
METRICS = {
    "ACC": "accuracy",
    "EM": "exact_match",
    "QA-F1": "f1",
    "Classification-F1": "f1",
    "Matthew-Correlation": "matthews_correlation",
    "Pearson-Correlation": "pearsonr",
    "Rouge-L": "rouge",
}
USE = """\
from routing_moe import Routed
model = Routed.load("{name}")
task = model.task({task})
print(task)
model.answer(task, ["..."])"""
CITATION = """\
@inproceedings{ye-etal-2022-eliciting,
  title = "Eliciting and Understanding Cross-task Skills with Task-level Mixture-of-Experts",
  author = "Ye, Qinyuan and Zha, Juan and Ren, Xiang",
  booktitle = "Findings of the Association for Computational Linguistics: EMNLP 2022",
  year = "2022",
  url = "https://arxiv.org/abs/2205.12701",
}"""


def model_card(shared: SharedRun, settings: PushSettings) -> ModelCard:
    """Returns the card, whose metadata are those of `card_data`."""
    parts = {
        "": description(shared),
        "Use": use(shared, settings.name),
        "Scores": scores(shared),
        "Routes": routes(shared),
        "Training": training(shared),
        "Limits": limits(shared),
        "Data and licences": data(shared, settings),
        "Citation": f"```bibtex\n{CITATION}\n```",
    }
    text = "\n\n".join(f"## {title}\n\n{body}" if title else body for title, body in parts.items())
    front = card_data(shared, settings).to_yaml()
    return ModelCard(
        f"---\n{front}\n---\n\n# {settings.name.split('/')[1]}\n\n{text}\n", ignore_metadata_errors=True
    )


def card_data(shared: SharedRun, settings: PushSettings) -> ModelCardData:
    """Returns the metadata: library, tags, base model, licence, data sets, test scores."""
    base = base_model(shared)
    sources = " ".join(source for source, _ in data_sources(shared).values())
    return ModelCardData(
        library_name="routing-moe",
        tags=["bart", "mixture-of-experts", "multi-task", GENERATION],
        base_model=base if base in (shared.described.get("hub") or {}) else None,
        license=settings.license,
        datasets=sorted(set(re.findall(r"hub data set ([\w.-]+/[\w.-]+)", sources))) or None,
        model_name=settings.name.split("/")[1],
        eval_results=eval_results(shared) or None,
    )


def eval_results(shared: SharedRun) -> list[EvalResult]:
    """Returns the scores of test files."""
    return [
        EvalResult(
            task_type=GENERATION,
            task_name=TITLES[section],
            dataset_type=row.task_prefix,
            dataset_name=row.sample,
            dataset_split="test",
            metric_type=METRICS.get(row.metric, row.metric),
            metric_name=row.metric,
            metric_value=round(row.performance, 4),
        )
        for section in TITLES
        if ("test", section) in shared.scores
        for row in shared.scores["test", section].itertuples()
    ]


def base_model(shared: SharedRun) -> str:
    """Returns the plain BART that the run was made from, as its command names it; "" if unknown."""
    if not shared.settings.get("initialize_from_vanilla"):
        return ""
    return shared.settings.get("model") or ""


# ---- the sections


def description(shared: SharedRun) -> str:
    config, trained = shared.mixture.config, len(shared.mixture.config.trained_tasks)
    depth = config.encoder_layers + config.decoder_layers
    layers = f"{depth} layers ({config.encoder_layers} encoder, {config.decoder_layers} decoder)"
    tasks = counted(trained, "task") if trained else "tasks that are not recorded"
    if base := base_model(shared):
        commit = (shared.described.get("hub") or {}).get(base)
        start = f"Made from the BART `{base}`" + (f", commit {commit}." if commit else ".")
    elif checkpoint := shared.settings.get("checkpoint"):
        start = f"Trained further from `{checkpoint}`."
    else:
        start = "What it was made from is not recorded."
    if config.num_experts == 1:
        return f"A BART with {layers}, trained on {tasks}: {config.experts_described}, no routing. {start}"
    routed = len(config.routed_layers)
    where = "all" if routed == depth else f"{routed} of its"
    mode = f", {config.router_mode}" if config.route_source == "learned" else ""
    decides = "The task of a text, not the text, decides which experts compute its answer. "
    routes = (decides if config.routes_by_task else "") + f"Routes: {config.route_source}{mode}."
    experts = f"{config.experts_described} in {where} {layers}"
    return f"A BART with {experts}, trained on {tasks}. {routes} {start}"


def use(shared: SharedRun, name: str) -> str:
    task, note = task_of_texts(shared)
    is_plain = shared.mixture.config.num_experts == 1
    start = f"--checkpoint {name}" if is_plain else f"--moe_init --init_dir {name}"
    explain = f"\nrouting-moe report {name} --output_file report.html" if shared.routes else ""
    return f"""\
The model's class is in the Python package `routing-moe`; no code of this repository is run, and no file of it
is a pickle. {note}

```python
{USE.format(name=name, task=task)}
```

The name stands for a run folder in all commands, also offline once it is in the cache:

```bash
routing-moe train --do_predict --checkpoint {name} --train_dir GYM --output_dir OUT
routing-moe train --do_train --checkpoint {name} --train_dir GYM --output_dir OUT
routing-moe finetune --do_train {start} --task_dir GYM/TASK --output_dir OUT{explain}
```"""


def task_of_texts(shared: SharedRun) -> tuple[str, str]:
    """Returns the arguments of `Routed.task` that this model can answer with, and a sentence on them."""
    config = shared.mixture.config
    if config.num_experts == 1 or config.route_source == "average":
        return '"my_task"', "The name of the task begins every input."
    if config.routes_by_task and (shared.mixture.checkpoint / TEXTS_FILE).is_file():
        return '"my_task", inputs=texts', (
            "`texts` is a list of inputs without answers, by which the nearest train task is found."
        )
    known = sorted(set(config.trained_tasks).intersection(config.task_names)) or config.task_names
    if config.routes_by_task and known:
        return f'"{known[0]}"', (
            "The route is that of a train task; no text vectors are here, by which the nearest one is found."
        )
    return '"my_task", examples=examples', (
        "`examples` is a list of pairs of an input and its answer, from which a route is learned."
    )


def scores(shared: SharedRun) -> str:
    """Returns a table of test scores of train tasks, and one of unseen tasks."""
    call = "`routing-moe train --do_predict --predict_split"
    parts = []
    for section, title in TITLES.items():
        table = shared.scores.get(("test", section))
        if table is None:
            parts.append(f"**{title}**: not scored ({call} {section} --output_dir RUN` writes their scores).")
            continue
        mean = f"mean {table['performance'].mean():.3f} over {counted(len(table), 'test file')}"
        parts.append(f"**{title}**, {mean}:\n\n{score_table(table)}")
    return (
        "Scores of test files; n: examples. Answers without a model: always the task's most frequent\n"
        "training answer (constant), a random option (chance), the input (copy).\n\n" + "\n\n".join(parts)
    )


def score_table(table: pd.DataFrame) -> str:
    columns = {"metric": "metric", "performance": "score", "n": "n"}
    columns |= {name: name.replace("_", " ") for name in with_values(table, (*BASELINES, *MEASURES[1:]))}
    columns |= {"route": "route", "vector_seen": "has seen of the task"}
    cells = table.set_index("sample")[[name for name in columns if name in table]].rename(columns=columns)
    texts = cells.select_dtypes(exclude="number").columns
    cells[texts] = cells[texts].fillna("-").map(lambda text: str(text).replace("|", "\\|"))
    return markdown_table(cells.astype({"n": int}).rename_axis("task"))


def routes(shared: SharedRun) -> str:
    if shared.routes is None:
        return f"There is no picture of routes: {shared.no_routes}."
    layers = layer_table(shared.routes).set_index("layer")
    loads = layers[[name for name in layers if name.startswith("load_") and name != "load_entropy"]]
    loads = loads.set_axis([f"expert {name.removeprefix('load_')}" for name in loads], axis=1)
    at = f"step {shared.routes.step}" if shared.routes.step is not None else "the checkpoint"
    return (
        f"![Routes: tasks and the weights of their experts in each layer]({PICTURE})\n\n"
        f"Weights of the experts (columns) for each train task (rows), at {at}. The load of an expert is\n"
        f"its mean weight over the tasks:\n\n{markdown_table(loads)}"
    )


def training(shared: SharedRun) -> str:
    """Returns command, commit and costs, of which each may be unknown."""
    if not shared.described:
        return "The checkpoint has no run.json: command, data and costs of its training are unknown."
    described, cost = shared.described, shared.cost
    command = (described.get("command") or "").replace(" --", " \\\n    --")
    versions = ", ".join(f"{name} {number}" for name, number in (described.get("versions") or {}).items())
    rows = {
        "commit of the code": described.get("git") or "unknown",
        "seed": shared.settings.get("seed", "unknown"),
    }
    if cost:
        active, total = (in_units(cost[f"{name}_parameters"]).strip() for name in ("active", "total"))
        rows["parameters"] = f"{active} active for a task, of {total}"
        rows["steps"] = f"{cost['steps']} of {cost['examples_per_step']} examples"
        rows["training FLOPs"] = in_units(cost["total_flops"]).strip()
        if cost["start_unknown"]:
            rows["with earlier runs"] = f"unknown: {cost['start_unknown']}"
        elif cost["total_flops_with_start"] != cost["total_flops"]:
            rows["with earlier runs"] = in_units(cost["total_flops_with_start"]).strip()
    else:
        rows["steps, FLOPs"] = "unknown: the run has no cost.json"
    seconds = described.get("seconds")
    rows["seconds of training"] = "unknown" if seconds is None else f"{seconds}, without evaluations"
    rows["device"] = described.get("device") or "unknown"
    rows["versions"] = versions or "unknown"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"```bash\n{command}\n```\n\n| | |\n|---|---|\n{table}"


def limits(shared: SharedRun) -> str:
    length, seed = shared.settings.get("max_input_length"), shared.settings.get("seed")
    lines = ["Answers are generated: they can be wrong, and repeat biases of the data."]
    if shared.mixture.config.routes_by_task:
        lines.append(
            "A text is answered by the route of its task: a text of another kind gets an unsuitable route."
        )
    if length:
        lines.append(f"Inputs are cut after {length} tokens.")
    if seed is not None:
        lines.append(f"All numbers are of one run, with seed {seed}; scores of other seeds differ.")
    lines.append("Only the tasks above were scored; languages and topics of other texts are untested.")
    return "\n".join(f"- {line}" for line in lines)


def data(shared: SharedRun, settings: PushSettings) -> str:
    """Returns the licence of the weights, and the terms of use of the data as far as they are recorded."""
    text = "No licence of the weights is stated; those of the base model and of the data apply."
    if settings.license:
        text = f"Licence of the weights: {settings.license}."
    sources, tasks = data_sources(shared), shared.tasks
    by_terms: dict[str, list[str]] = {}
    for task, (_, terms) in sources.items():
        by_terms.setdefault(terms, []).append(task)
    lines = [f"- {terms}: {', '.join(names)}" for terms, names in by_terms.items() if terms]
    if lines:
        text += "\n\nTerms of use of data sets that tasks were made from:\n\n" + "\n".join(lines)
    unknown = [task for task in tasks if not sources.get(task, ("", ""))[1]]
    if unknown:
        text += f"\n\nFor {len(unknown)} of {counted(len(tasks), 'task')} no terms of use are recorded here."
    return text
