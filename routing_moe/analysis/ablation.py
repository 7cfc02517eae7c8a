"""Ablation: scores of tasks without some experts, in a folder that is filled set by set, and tables of drops.

    job.json              what scores depend on: checkpoint, files, decoding
    sets/base.json        scores with all experts
    sets/enc0.1.json      scores without expert 1 of encoder layer 0; sets/enc0.1+dec2.0.json: without both

Several processes (accelerate launch) divide the sets among themselves. A drop is the score before minus the
score after: positive where the expert was useful. N tasks, L layers, E experts, S sets.
"""

import dataclasses
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor

from dataloader.errors import InputError, did_you_mean
from dataloader.jsonfile import load_json_object
from dataloader.ontology import Ontology
from dataloader.progress import ProgressBar
from routing_moe.analysis.correlation import correlate, top_experts, worth_testing
from routing_moe.analysis.features import Features
from routing_moe.analysis.saved_routes import expert_name, routes_of_model
from routing_moe.checkpoints.find import checksums, mixture_to_score
from routing_moe.checkpoints.start import load_start
from routing_moe.config.ablate import AblationSettings
from routing_moe.evaluation.scored_files import Decoding, Pool, TaskFile, decoding_of
from routing_moe.evaluation.scoring import answer, score
from routing_moe.io.job_folder import JobFolder, keep_same_job
from routing_moe.io.main_process import on_main
from routing_moe.model.given_routes import layer_names
from routing_moe.model.selection import select_routes
from routing_moe.results.scores import in_categories
from routing_moe.training.checks import Inputs
from routing_moe.training.prediction import route_tasks, task_files

ExpertSet = tuple[tuple[int, int], ...]  # (row of the route, encoder layers first; expert), sorted
BASE: ExpertSet = ()
USED = 0.05  # weight from which a task is called a user of an expert


class NothingToAblate(InputError):
    """Flags and files are valid, but there is no expert to ablate."""

    exit_code = 3


@torch.no_grad()
def routes_without(model, tasks: Sequence[str], experts: ExpertSet = BASE) -> Tensor:
    """Returns noise-free routes (N, L, E) of tasks without these experts; each layer must keep one.

    Logits of a router become -inf, so that it chooses among the others: a soft route is renormalised, a
    one-hot route uses the next best expert. Fixed and average routes are renormalised; where no weight is
    left they become uniform over the other experts.
    """
    if not experts:
        return model.routes_for(list(tasks))
    config = model.config
    mask = torch.zeros(config.num_layers, config.num_experts, dtype=torch.bool, device=model.device)
    for row, expert in experts:
        mask[row, expert] = True
    if config.has_router:
        logits_NLE = model.router_logits(model.task_ids(list(tasks))).masked_fill(mask, -torch.inf)
        how = config.router_mode, config.router_temperature
        routes_NLE = select_routes(logits_NLE, *how, top_k=config.router_top_k, noise=False)
    else:
        routes_NLE = model.routes_for(list(tasks))
    left_NLE = routes_NLE.masked_fill(mask, 0.0)  # a plugin's selection may give weight to every expert
    kept_NL1 = left_NLE.sum(-1, keepdim=True) / routes_NLE.sum(-1, keepdim=True)
    uniform_LE = (~mask).to(left_NLE.dtype)
    uniform_LE = uniform_LE / uniform_LE.sum(-1, keepdim=True)
    tiny = torch.finfo(kept_NL1.dtype).tiny
    return torch.where(kept_NL1 > 0, left_NLE / kept_NL1.clamp_min(tiny), uniform_LE)


def read_scores(path: Path) -> dict[str, float]:
    """Returns {sample: score} without some experts, of tasks whose route changes; of all tasks for BASE."""
    saved = load_json_object(path, "scores without some experts")
    return {sample: float(score) for sample, score in dict(saved["scores"]).items()}


class Ablation:
    """A model and the task files that it is scored on; `weights` has the route (L, E) of each task.

    described: what scores depend on (JSON values). Raises NothingToAblate for a model without an
    expert that can be ablated for a task.
    """

    def __init__(
        self,
        model,
        tokenizer,
        files: Sequence[TaskFile],
        decoding: Decoding,
        accelerator: Accelerator,
        folder: Path,
        described: dict,
    ):
        config = model.config
        if config.num_experts == 1:
            raise NothingToAblate("a model with one expert per layer has none that can be ablated for a task")
        if not model.source.per_task:
            raise NothingToAblate(f"{config.route_source} routes differ among the examples of a task")
        self.model, self.config, self.tokenizer, self.files = model.eval(), config, tokenizer, list(files)
        self.decoding, self.accelerator, self.described = decoding, accelerator, described
        self.tasks = list(dict.fromkeys(file.task for file in files))
        self.routes_NLE = routes_without(model, self.tasks)
        self.weights = dict(zip(self.tasks, self.routes_NLE.double().cpu().numpy(), strict=True))
        self.folder = Path(folder)
        self.sets = JobFolder(self.folder / "sets", read_scores, "score these again", name=self.name)

    def name(self, experts: ExpertSet) -> str:
        """Returns the name of a set, such as `enc0.1+dec2.0`, layers and experts; `base` for none."""
        return "+".join(expert_name(self.layer(row), e) for row, e in experts) or "base"

    def layer(self, row: int) -> str:
        """Returns the name of a row of the routes, such as "enc 0"."""
        return layer_names(self.config.depths[0], [row], self.config.lora_splits)[0]

    def all_experts(self) -> list[ExpertSet]:
        """Returns one set for each expert of each layer with experts."""
        return [((row, e),) for row in self.config.routed_rows for e in range(self.config.num_experts)]

    def singles(self, names: tuple[str, ...]) -> list[ExpertSet]:
        """Returns the experts that --experts names, each alone. Raises InputError for an unknown one."""
        by_name = {self.name(experts): experts for experts in self.all_experts()}
        if names in (("all",), ("none",)):
            return list(by_name.values()) if names == ("all",) else []
        if unknown := [word for word in names if word not in by_name]:
            raise InputError(f"--experts {unknown[0]}: give all, none, or some of {', '.join(by_name)}")
        return [by_name[word] for word in dict.fromkeys(names)]

    def changed(self, experts: ExpertSet) -> list[str]:
        """Returns tasks whose routes change without these experts; other tasks keep their scores."""
        differs_NLE = routes_without(self.model, self.tasks, experts).float() != self.routes_NLE.float()
        differs_N = differs_NLE[:, self.config.routed_rows].flatten(1).any(1)  # no layer reads other rows
        return [task for task, differs in zip(self.tasks, differs_N.tolist(), strict=True) if differs]

    def scores(self, experts: ExpertSet = BASE, tasks: Sequence[str] | None = None) -> dict[str, float]:
        """Returns {sample: score} of the files of the tasks (None: all) without these experts."""
        files = [file for file in self.files if tasks is None or file.task in tasks]
        routes_NLE = routes_without(self.model, self.tasks, experts)
        routes = {task: route_LE[None] for task, route_LE in zip(self.tasks, routes_NLE, strict=True)}
        answers = answer(self.model, self.tokenizer, files, self.decoding, self.accelerator, routes)
        return {
            file.sample: score(file, answered.texts, self.decoding.do_lowercase)
            for file, (answered,) in zip(files, answers, strict=True)
        }

    def table(self, sets: Iterable[ExpertSet]) -> pd.DataFrame:
        """Returns the scores of each task (a column) with all experts ("base") and without each finished set
        (a row with its name): means over the task's files."""
        task_of, base = {file.sample: file.task for file in self.files}, self.sets.finished(BASE)
        rows = {self.name(experts): base | self.sets.finished(experts) for experts in (BASE, *sets)}
        return pd.DataFrame(rows, index=list(base)).groupby(task_of, sort=False).mean().T

    def run(self, sets: Iterable[ExpertSet]) -> None:
        """Scores all experts, then the missing sets, divided among the processes."""
        # Only the main process reads the finished sets, because other processes may be writing files.
        missing = on_main(self.accelerator, lambda: self._start(sets))
        share = missing[self.accelerator.process_index :: self.accelerator.num_processes]
        quiet = not self.accelerator.is_main_process
        for experts in ProgressBar(share, "ablating", unit="set", disable=quiet):
            self._score(experts, self.changed(experts))
        self.accelerator.wait_for_everyone()

    def _start(self, sets: Iterable[ExpertSet]) -> list[ExpertSet]:
        """Returns the sets that are not finished; scores all experts first."""
        keep_same_job(self.folder, self.described, self.sets)
        if self.sets.finished(BASE) is None:
            self._score(BASE, self.tasks)
        return [experts for experts in dict.fromkeys(sets) if self.sets.finished(experts) is None]

    def _score(self, experts: ExpertSet, tasks: Sequence[str]) -> None:
        self.sets.write(experts, json.dumps({"scores": self.scores(experts, tasks)}).encode())


def load_ablation(
    settings: AblationSettings, inputs: Inputs, tasks: list[str], accelerator: Accelerator
) -> Ablation:
    """Returns the ablation of a run's checkpoint; tasks: those that are scored."""
    prediction = settings.prediction
    model, tokenizer = load_start(prediction, inputs.split)
    model.to(accelerator.device)
    route_tasks(prediction, inputs, tasks, model, tokenizer, accelerator)
    most = settings.max_examples or prediction.examples_per_file
    files = task_files(prediction, inputs, tasks, settings.part, model, tokenizer, most)
    decoding, pool = decoding_of(prediction), Pool(files)
    changes_nothing = ("batch_size", "random_draws", "seed", "measures")  # speed, random draws, other scores
    ablation = Ablation(model, tokenizer, files, decoding, accelerator, settings.output_dir, {})
    routes_NLE = ablation.routes_NLE[:, model.config.routed_rows]
    ablation.described = {
        "part": settings.part,
        "predict_split": prediction.predict_split,
        "max_examples": settings.max_examples,
        "decoding": {k: v for k, v in dataclasses.asdict(decoding).items() if k not in changes_nothing},
        "mixed_precision": prediction.mixed_precision,
        "files": {file.sample: file.metric for file in files},
        "data": pool.encoded.fingerprint(),
        "options": zlib.crc32(repr(pool.options if any(pool.options) else None).encode()),
        "routes": zlib.crc32(routes_NLE.float().cpu().numpy().tobytes()),
        "checkpoint_name": prediction.checkpoint_name,
        "checkpoint": checksums(mixture_to_score(prediction.start)),
    }
    return ablation


def experts_of_features(
    settings: AblationSettings, features: Features, ablation: Ablation
) -> dict[str, pd.DataFrame]:
    """Returns {feature: its --top experts, those whose weights correlate most with it}, in order of r.

    Columns: layer, expert, feature, r, tasks, with_feature. With --features all, features with fewer are left
    out. Raises InputError if a named feature is unknown or has fewer, NothingToAblate if none is left.
    """
    testable = [name for name in features.names if worth_testing(features, name)]
    every = settings.features == ("all",)
    if unknown := [name for name in settings.features if not every and name not in testable]:
        guess = did_you_mean(unknown[0], [*testable, "all"])
        raise InputError(
            f"--features {unknown[0]}: no such feature that at least three tasks have, and three lack{guess} "
            f"(there are {', '.join(testable)})"
        )
    routes = routes_of_model(ablation.model, features.tasks, settings.routes)
    ranked = top_experts(correlate(routes, features, permutations=0), len(routes.layers) * routes.experts)
    # Every layer keeps an expert.
    ranked = ranked[ranked.groupby(["feature", "layer"], observed=True).cumcount() < routes.experts - 1]
    ranked = ranked[["layer", "expert", "feature", "r", "tasks", "with_feature"]]
    top = {}
    for feature in testable if every else settings.features:
        experts = ranked[ranked["feature"] == feature].head(settings.top)
        if len(experts) == settings.top:
            top[feature] = experts
        elif not every:
            raise InputError(
                f"--top {settings.top}: only {len(experts)} experts correlate with {feature} and can be "
                "ablated without emptying a layer"
            )
    if not top:
        raise NothingToAblate(
            "--features all: no feature holds for at least three tasks, does not for three, and correlates "
            "with --top experts"
        )
    return top


def set_of(experts: pd.DataFrame, ablation: Ablation) -> ExpertSet:
    """Returns the rows of a table with columns layer and expert as a set."""
    row_of = {ablation.layer(row): row for row in ablation.config.routed_rows}
    return tuple(sorted((row_of[row.layer], int(row.expert)) for row in experts.itertuples()))


# ---- tables


def task_table(
    ablation: Ablation, singles: Sequence[ExpertSet], scores_ST: pd.DataFrame, ontology: Ontology
) -> pd.DataFrame:
    """A row per expert and task: layer, expert, task, category, weight (of the expert in the task's route),
    before, after, drop, others (mean drop of the task without each of the other experts, one at a time: what
    a random one would cost)."""
    rows = []
    for ((row, expert),) in singles:
        after_T = scores_ST.loc[ablation.name(((row, expert),))]
        for task, before in scores_ST.loc["base"].items():
            category, weight = ontology.category(task)[0], ablation.weights[task][row, expert]
            rows.append((ablation.layer(row), expert, task, category, weight, before, after_T[task]))
    columns = ["layer", "expert", "task", "category", "weight", "before", "after"]
    table = pd.DataFrame(rows, columns=columns)
    return with_others(table.assign(drop=table["before"] - table["after"]), "task")


def with_others(table: pd.DataFrame, group: str) -> pd.DataFrame:
    """Returns the table with a column others: the mean drop of all other rows of the group, NaN if none."""
    drops = table.groupby(group, observed=True, sort=False)["drop"]
    total, count = drops.transform("sum"), drops.transform("size")
    return table.assign(others=(total - table["drop"]) / (count - 1).where(count > 1))


def category_drops(tasks: pd.DataFrame, ontology: Ontology) -> pd.DataFrame:
    """Returns a row per expert and category (then "all"): tasks, users (tasks that give the expert USED or
    more), drop (mean over the tasks), others (mean drop of the other experts: what a random one costs)."""
    kinds = ["layer", "expert", "category"]
    grouped = in_categories(tasks, ontology).groupby(kinds, sort=False, observed=True)
    users = ("weight", lambda weights: int((weights >= USED).sum()))
    table = grouped.agg(tasks=("drop", "size"), users=users, drop=("drop", "mean")).reset_index()
    table = with_others(table, "category")
    return table.assign(category=table["category"].astype(str))


def feature_table(
    ablation: Ablation,
    by_feature: Mapping[str, ExpertSet],
    scores_ST: pd.DataFrame,
    features: Features,
    ontology: Ontology,
) -> pd.DataFrame:
    """A row per feature and group of tasks: experts (of the feature), group, tasks (their number), drop (mean
    without these experts), weight (mean of these experts in the routes of the tasks).

    Groups: "with feature", "without feature" (tasks that have and lack it), categories, "all".
    """
    rows, weights = [], ablation.weights
    for feature, experts in by_feature.items():
        name = ablation.name(experts)
        drops_T = scores_ST.loc["base"] - scores_ST.loc[name]
        for group, tasks in groups_of(ablation.tasks, feature, features, ontology).items():
            weight = np.mean([weights[task][expert] for task in tasks for expert in experts])
            rows.append((feature, name, group, len(tasks), drops_T[tasks].mean(), weight))
    return pd.DataFrame(rows, columns=["feature", "experts", "group", "tasks", "drop", "weight"])


def groups_of(tasks: Sequence[str], feature: str, features: Features, ontology: Ontology) -> dict[str, list]:
    """Returns {group: its tasks}, without empty groups."""
    value = dict(zip(features.tasks, features.column(feature), strict=True))
    groups = {"with feature": [task for task in tasks if value.get(task) == 1]}
    groups["without feature"] = [task for task in tasks if value.get(task) == 0]
    for task in ontology.order(tasks):
        groups.setdefault(ontology.category(task)[0], []).append(task)
    groups["all"] = list(tasks)
    return {group: members for group, members in groups.items() if members}
