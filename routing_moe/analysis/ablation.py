"""Ablation: scores of tasks without some experts, in a folder that is filled set by set.

    job.json              what scores depend on: checkpoint, files, decoding
    sets/base.json        scores with all experts, and the seconds that they took
    sets/enc0.1.json      scores without expert 1 of encoder layer 0; sets/enc0.1+dec2.0.json: without both

See `JobFolder` for how an interrupted job continues. Several processes (accelerate launch) divide the sets
among themselves. A router's logits for an ablated expert become -inf, so that it chooses among the others: a
soft route is renormalised, a one-hot route uses the next best expert. Fixed and average routes are
renormalised; where no weight is left they become uniform over the other experts.
N tasks, L layers, E experts.
"""

import dataclasses
import json
import logging
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor

from dataloader.errors import InputError, did_you_mean
from dataloader.jsonfile import load_json_object
from dataloader.progress import ProgressBar
from routing_moe.analysis.correlation import correlate, top_experts, worth_testing
from routing_moe.analysis.features import Features
from routing_moe.analysis.saved_routes import routes_of_model
from routing_moe.checkpoints.find import mixture_to_score
from routing_moe.checkpoints.start import load_start
from routing_moe.config.ablate import AblationSettings
from routing_moe.evaluation.scored_files import Decoding, Pool, TaskFile, decoding_of
from routing_moe.evaluation.scoring import answer, score
from routing_moe.io.job_folder import JobFolder, keep_same_job
from routing_moe.io.main_process import on_main
from routing_moe.model.given_routes import layer_names
from routing_moe.model.selection import noise_free_routes
from routing_moe.training.checks import Inputs
from routing_moe.training.prediction import route_tasks, task_files

log = logging.getLogger("routing_moe")

ExpertSet = tuple[tuple[int, int], ...]  # (row of the route, encoder layers first; expert), sorted
BASE: ExpertSet = ()


class NothingToAblate(InputError):
    """Flags and files are valid, but there is no expert to ablate."""

    exit_code = 3


@torch.no_grad()
def routes_without(model, tasks: Sequence[str], experts: ExpertSet = BASE) -> Tensor:
    """Returns noise-free routes (N, L, E) of tasks without these experts; each layer must keep one."""
    if not experts:
        return model.routes_for(list(tasks))
    config = model.config
    mask = torch.zeros(config.num_layers, config.num_experts, dtype=torch.bool, device=model.device)
    for row, expert in experts:
        mask[row, expert] = True
    if config.has_router:
        logits_NLE = model.router_logits(model.task_ids(list(tasks))).masked_fill(mask, -torch.inf)
        return noise_free_routes(
            logits_NLE, config.router_mode, config.router_temperature, config.router_top_k
        )
    left_NLE = model.routes_for(list(tasks)).masked_fill(mask, 0.0)
    sums_NL1 = left_NLE.sum(-1, keepdim=True)
    uniform_LE = (~mask).to(left_NLE.dtype)
    uniform_LE = uniform_LE / uniform_LE.sum(-1, keepdim=True)
    tiny = torch.finfo(sums_NL1.dtype).tiny
    return torch.where(sums_NL1 > 0, left_NLE / sums_NL1.clamp_min(tiny), uniform_LE)


@dataclass(frozen=True)
class Scores:
    """Scores {sample: score} without some experts, of tasks whose route changes; of all tasks for BASE."""

    scores: dict[str, float]
    seconds: float
    examples: int


def read_scores(path: Path) -> Scores:
    saved = load_json_object(path, "scores without some experts")
    scores = {task: float(score) for task, score in dict(saved["scores"]).items()}
    return Scores(scores, float(saved["seconds"]), int(saved["examples"]))


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
        if config.num_experts == 1 or config.route_source == "random":
            reason = "one expert per layer" if config.num_experts == 1 else "routes drawn for each example"
            raise NothingToAblate(f"a model with {reason} has no experts that can be ablated for a task")
        self.model, self.config, self.tokenizer, self.files = model.eval(), config, tokenizer, list(files)
        self.decoding, self.accelerator = decoding, accelerator
        self.tasks = list(dict.fromkeys(file.task for file in files))
        routes = self.routes()
        self.weights = {task: route_LE.double().cpu().numpy() for task, route_LE in routes.items()}
        self._base_bytes = {task: self._bytes(route_LE) for task, route_LE in routes.items()}
        self.fingerprint = zlib.crc32(b"".join(self._base_bytes.values()))  # of all routes
        self.folder, self.described = Path(folder), described
        self.sets = JobFolder(self.folder / "sets", read_scores, "score these again", name=self.name)

    # ---- experts and their routes

    def name(self, experts: ExpertSet) -> str:
        """Returns the name of a set, such as `enc0.1+dec2.0`, layers and experts; `base` for none."""
        places = (f"{self.layer(row)}.{expert}".replace(" ", "") for row, expert in experts)
        return "+".join(places) or "base"

    def layer(self, row: int) -> str:
        """Returns the name of a row of the routes, such as "enc 0"."""
        return layer_names(self.config.encoder_layers, [row], self.config.lora_splits)[0]

    def all_experts(self) -> list[ExpertSet]:
        """Returns one set for each expert of each layer with experts."""
        rows, experts = self.config.routed_rows, range(self.config.num_experts)
        return [((row, expert),) for row in rows for expert in experts]

    def singles(self, words: tuple[str, ...]) -> list[ExpertSet]:
        """Returns the experts that --experts names, each alone. Raises InputError for an unknown one."""
        by_name = {self.name(experts): experts for experts in self.all_experts()}
        if words in (("all",), ("none",)):
            return list(by_name.values()) if words == ("all",) else []
        if unknown := [word for word in words if word not in by_name]:
            raise InputError(f"--experts {unknown[0]}: give all, none, or some of {', '.join(by_name)}")
        return [by_name[word] for word in dict.fromkeys(words)]

    def routes(self, experts: ExpertSet = BASE) -> dict[str, Tensor]:
        """Returns {task: route (L, E)} without these experts."""
        return dict(zip(self.tasks, routes_without(self.model, self.tasks, experts), strict=True))

    def changed(self, experts: ExpertSet) -> list[str]:
        """Returns tasks whose routes change without these experts; other tasks keep their scores."""
        without = self.routes(experts)
        return [task for task in self.tasks if self._base_bytes[task] != self._bytes(without[task])]

    def _bytes(self, route_LE: Tensor) -> bytes:
        """Returns the rows of a route that a layer reads."""
        return route_LE[self.config.routed_rows].float().cpu().numpy().tobytes()

    # ---- scores

    def examples_of(self, tasks: Sequence[str]) -> int:
        """Returns the number of examples in the files of the tasks."""
        return sum(len(file.examples) for file in self.files if file.task in tasks)

    def scores(self, experts: ExpertSet = BASE, tasks: Sequence[str] | None = None) -> dict[str, float]:
        """Returns {sample: score} of the files of the tasks (None: all) without these experts."""
        files = [file for file in self.files if tasks is None or file.task in tasks]
        given = (self.decoding, self.accelerator, self.routes(experts))
        answers = answer(self.model, self.tokenizer, files, *given)
        return {
            file.sample: score(file, answered.texts, self.decoding.do_lowercase)
            for file, (answered,) in zip(files, answers, strict=True)
        }

    def table(self, sets: Iterable[ExpertSet]) -> pd.DataFrame:
        """Returns the scores of each task (a column) with all experts ("base") and without each finished set
        (a row with its name): means over the task's files."""
        task_of, base = {f.sample: f.task for f in self.files}, self.sets.finished(BASE).scores
        rows = {self.name(experts): base | self.sets.finished(experts).scores for experts in (BASE, *sets)}
        return pd.DataFrame(rows, index=list(base)).groupby(task_of, sort=False).mean().T

    def run(self, sets: Sequence[ExpertSet], dry_run: bool = False) -> None:
        """Scores all experts, then the missing sets, divided among the processes; returns when all are done.

        dry_run: scores all experts and logs how long the others would take.
        """
        # Only the main process reads the finished sets, because other processes may be writing files.
        missing = on_main(self.accelerator, lambda: self._start(sets))
        if dry_run:
            log.info("--dry_run: no expert is ablated")
            return
        share = list(missing.items())[self.accelerator.process_index :: self.accelerator.num_processes]
        total = sum(self.examples_of(tasks) for _, tasks in share)
        quiet = not self.accelerator.is_main_process
        with ProgressBar(total=total, desc="ablating", unit="answer", disable=quiet) as bar:
            for experts, tasks in share:
                bar.set_postfix_str(self.name(experts)[:30], refresh=False)
                self._score(experts, tasks)
                bar.update(self.examples_of(tasks))
        self.accelerator.wait_for_everyone()

    def _start(self, sets: Iterable[ExpertSet]) -> dict[ExpertSet, list[str]]:
        """Returns {set that is not finished: tasks whose routes change without it}; scores all experts first.

        Logs the remaining work and its time, estimated from that of the scores with all experts.
        """
        keep_same_job(self.folder, self.described, self.sets)
        base = self.sets.finished(BASE) or self._score(BASE, self.tasks)
        sets = dict.fromkeys(sets)
        missing = {e: self.changed(e) for e in sets if self.sets.finished(e) is None}
        examples = sum(self.examples_of(tasks) for tasks in missing.values())
        seconds = examples * base.seconds / max(1, base.examples) / self.accelerator.num_processes
        log.info(
            f"{len(sets)} sets of experts to ablate, {len(sets) - len(missing)} finished; remaining: "
            f"{examples} answers with changed routes, about {seconds / 60:.1f} minutes"
        )
        return missing

    def _score(self, experts: ExpertSet, tasks: Sequence[str]) -> Scores:
        began = time.perf_counter()
        scores = self.scores(experts, tasks)
        result = Scores(scores, time.perf_counter() - began, self.examples_of(tasks))
        self.sets.write(experts, json.dumps(vars(result)).encode())
        return result


# ---- the ablation of a run


def load_ablation(
    settings: AblationSettings, inputs: Inputs, tasks: list[str], accelerator: Accelerator
) -> Ablation:
    """Returns the ablation of a run's checkpoint; tasks: those that are scored."""
    prediction = settings.prediction
    model, tokenizer = load_start(prediction, inputs.split)
    model.to(accelerator.device)
    route_tasks(prediction.start, prediction.evaluation, inputs, tasks, model, tokenizer, accelerator)
    most = settings.max_examples or prediction.examples_per_file
    evaluation = dataclasses.replace(prediction.evaluation, most=most)
    files = task_files(evaluation, inputs, tasks, settings.part, model, tokenizer)
    decoding, pool = decoding_of(prediction), Pool(files)
    changes_nothing = ("batch_size", "random_draws", "seed", "measures")  # speed, random draws, other scores
    ablation = Ablation(model, tokenizer, files, decoding, accelerator, settings.output_dir, {})
    ablation.described = {
        "part": settings.part,
        "predict_split": prediction.predict_split,
        "max_examples": settings.max_examples,
        "decoding": {k: v for k, v in dataclasses.asdict(decoding).items() if k not in changes_nothing},
        "mixed_precision": prediction.mixed_precision,
        "files": {file.sample: file.metric for file in files},
        "data": pool.encoded.fingerprint(),
        "options": zlib.crc32(repr(pool.options if any(pool.options) else None).encode()),
        "routes": ablation.fingerprint,
        "checkpoint_name": prediction.checkpoint_name,
        "checkpoint": mixture_to_score(prediction.start).checksums(),
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
    names = testable if every else settings.features
    if unknown := [name for name in names if name not in testable]:
        guess = did_you_mean(unknown[0], [*testable, "all"])
        raise InputError(
            f"--features {unknown[0]}: no such feature that at least three tasks have, and three lack{guess} "
            f"(there are {', '.join(testable)})"
        )
    routes = routes_of_model(ablation.model, features.tasks, settings.routes)
    table = correlate(routes, features, 0)
    ranked = top_experts(table, len(table))  # of each feature; every layer keeps an expert
    ranked = ranked[ranked.groupby(["feature", "layer"], observed=True).cumcount() < routes.experts - 1]
    ranked = ranked[["layer", "expert", "feature", "r", "tasks", "with_feature"]]
    found = {name: ranked[ranked["feature"] == name].head(settings.top) for name in names}
    top = {name: experts for name, experts in found.items() if len(experts) == settings.top}
    if short := [name for name in found if name not in top]:
        few = f"--top {settings.top}: only {len(found[short[0]])} experts correlate with {short[0]}"
        if not every:
            raise InputError(f"{few} and can be ablated without emptying a layer")
        log.info("left out, fewer than %d experts correlate with: %s", settings.top, ", ".join(short))
    if not top:
        raise NothingToAblate(
            "--features all: no feature holds for at least three tasks, does not for three, and correlates "
            "with --top experts"
        )
    return top
