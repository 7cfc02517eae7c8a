"""Ablation of many sets of experts, in a folder that is filled set by set.

    job.json              what scores depend on: checkpoint, files, decoding
    sets/base.json        scores with all experts, and the seconds that they took
    sets/enc0.1.json      scores without expert 1 of encoder layer 0; sets/enc0.1+dec2.0.json: without both

See `JobFolder` for how an interrupted job continues. Several processes (accelerate launch) divide the sets
among themselves.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from accelerate import Accelerator

from dataloader.jsonfile import load_json_object
from dataloader.progress import ProgressBar
from routing_moe.analysis.ablation.checks import AblationInputs
from routing_moe.analysis.ablation.expert_sets import BASE, ExpertSet
from routing_moe.analysis.ablation.model import Evaluator
from routing_moe.checkpoints.find import mixture_to_score
from routing_moe.checkpoints.start import load_start
from routing_moe.config.ablate import AblationSettings
from routing_moe.evaluation.scored_files import Pool, decoding_of
from routing_moe.io.job_folder import JobFolder, keep_same_job
from routing_moe.io.main_process import on_main
from routing_moe.model.given_routes import layer_names
from routing_moe.training.prediction import route_tasks, task_files

log = logging.getLogger("routing_moe")


@dataclass(frozen=True)
class Scores:
    """Scores {sample: score} without some experts, for the files whose task's route changes; for all files if
    no expert is ablated."""

    scores: dict[str, float]
    seconds: float
    examples: int


class AblationJob:
    """Scores sets of experts, in `folder`.

    described: what scores depend on (JSON values). Raises InputError if the folder has scores with other
    values.
    """

    def __init__(self, evaluator: Evaluator, folder: Path, described: dict):
        self.evaluator, self.folder, self.described = evaluator, Path(folder), described
        self.sets = JobFolder(self.folder / "sets", read_scores, "score these again", name=self.name)
        self.config = evaluator.model.config

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

    # ---- results

    def finished(self, experts: ExpertSet) -> Scores | None:
        """Returns the scores of a set, None if it is not finished. Raises InputError for a damaged file."""
        return self.sets.finished(experts)

    def scores(self, sets: Iterable[ExpertSet]) -> pd.DataFrame:
        """Returns the scores of each task (a column) with all experts ("base") and without each finished set
        (a row with its name): means over the task's files."""
        task_of, base = {f.sample: f.task for f in self.evaluator.files}, self.finished(BASE).scores
        rows = {self.name(experts): base | self.finished(experts).scores for experts in (BASE, *sets)}
        return pd.DataFrame(rows, index=list(base)).groupby(task_of, sort=False).mean().T

    # ---- scoring

    def run(self, sets: Sequence[ExpertSet], dry_run: bool = False) -> None:
        """Scores all experts, then the missing sets, divided among the processes; returns when all are done.

        dry_run: scores all experts and logs how long the others would take.
        """
        accelerator = self.evaluator.accelerator
        # Only the main process reads the finished sets, because other processes may be writing files.
        missing = on_main(accelerator, lambda: self.start(sets))
        if dry_run:
            log.info("--dry_run: no expert is ablated")
            return
        share = list(missing.items())[accelerator.process_index :: accelerator.num_processes]
        total = sum(self.evaluator.examples_of(tasks) for _, tasks in share)
        quiet = not accelerator.is_main_process
        with ProgressBar(total=total, desc="ablating", unit="answer", disable=quiet) as bar:
            for experts, tasks in share:
                bar.set_postfix_str(self.name(experts)[:30], refresh=False)
                self._score(experts, tasks)
                bar.update(self.evaluator.examples_of(tasks))
        accelerator.wait_for_everyone()

    def start(self, sets: Iterable[ExpertSet]) -> dict[ExpertSet, list[str]]:
        """Returns {set that is not finished: tasks whose routes change without it}; scores all experts first.

        Logs the remaining work and its time, estimated from that of the scores with all experts.
        """
        keep_same_job(self.folder, self.described, self.sets)
        base = self.finished(BASE) or self._score(BASE, self.evaluator.tasks)
        sets = dict.fromkeys(sets)
        missing = {e: self.evaluator.changed(e) for e in sets if self.finished(e) is None}
        examples = sum(self.evaluator.examples_of(tasks) for tasks in missing.values())
        processes = self.evaluator.accelerator.num_processes
        seconds = examples * base.seconds / max(1, base.examples) / processes
        log.info(
            f"{len(sets)} sets of experts to ablate, {len(sets) - len(missing)} finished; remaining: "
            f"{examples} answers with changed routes, about {_duration(seconds)}"
            f"{f' in {processes} processes' if processes > 1 else ''} "
            f"({base.examples} took {base.seconds:.1f} s)"
        )
        return missing

    def _score(self, experts: ExpertSet, tasks: Sequence[str]) -> Scores:
        began = time.perf_counter()
        scores = self.evaluator.scores(self.evaluator.routes(experts), tasks)
        result = Scores(scores, time.perf_counter() - began, self.evaluator.examples_of(tasks))
        self.sets.write(experts, json.dumps(vars(result)).encode())
        return result


def read_scores(path: Path) -> Scores:
    saved = load_json_object(path, "scores without some experts")
    scores = {task: float(score) for task, score in dict(saved["scores"]).items()}
    return Scores(scores, float(saved["seconds"]), int(saved["examples"]))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# ---- the job of a run


def make_job(settings: AblationSettings, inputs: AblationInputs, accelerator: Accelerator) -> AblationJob:
    """Returns the job of the run's checkpoint in --output_dir. Raises InputError if scores there differ."""
    prediction, run = settings.prediction, inputs.run
    model, tokenizer = load_start(prediction, run.split)
    model.to(accelerator.device)
    route_tasks(prediction.start, prediction.evaluation, run, inputs.tasks, model, tokenizer, accelerator)
    most = settings.max_examples or prediction.examples_per_file
    evaluation = dataclasses.replace(prediction.evaluation, most=most)
    files = task_files(evaluation, run, inputs.tasks, settings.part, model, tokenizer)
    evaluator = Evaluator(model, tokenizer, files, decoding_of(prediction), accelerator)
    log.info("%d tasks, %s files; scored with all experts first", len(evaluator.tasks), settings.part)
    return AblationJob(evaluator, settings.output_dir, described(settings, evaluator))


def described(settings: AblationSettings, evaluator: Evaluator) -> dict:
    """Returns all that the scores of a set depend on, which must not change when a folder is continued."""
    prediction, pool = settings.prediction, Pool(evaluator.files)
    decoding = dataclasses.asdict(evaluator.decoding)
    for name in ("batch_size", "random_draws", "seed", "measures"):  # speed, random draws, other scores
        del decoding[name]
    return {
        "part": settings.part,
        "predict_split": prediction.predict_split,
        "max_examples": settings.max_examples,
        "decoding": decoding,
        "mixed_precision": prediction.mixed_precision,
        "files": {file.sample: file.metric for file in evaluator.files},
        "data": pool.encoded.fingerprint(),
        "options": zlib.crc32(repr(pool.options if any(pool.options) else None).encode()),
        "routes": evaluator.fingerprint(),
        "checkpoint_name": prediction.checkpoint_name,
        "checkpoint": mixture_to_score(prediction.start).checksums(),
    }
