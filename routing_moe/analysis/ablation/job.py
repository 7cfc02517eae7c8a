"""Ablation of many sets of experts, in a folder that is filled set by set.

    job.json              what scores depend on: checkpoint, files, decoding
    sets/base.json        scores with all experts, and the seconds that they took
    sets/enc0.1.json      scores without expert 1 of encoder layer 0; sets/enc0.1+dec2.0.json: without both

See `JobFolder` for how an interrupted job continues. Several processes (accelerate launch) divide the sets
among themselves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from dataloader.atomic_files import write_text
from dataloader.checksums import sha256_of
from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object
from routing_moe.analysis.ablation.expert_sets import BASE, ExpertSet
from routing_moe.analysis.ablation.model import Evaluator, mask_of
from routing_moe.analysis.ablation.result_files import JOB_FILE
from routing_moe.analysis.saved_routes import layer_names
from routing_moe.io.job_folder import JobFolder
from routing_moe.io.main_process import on_main

MAX_NAME_LENGTH = 150  # longer names of sets are hashed in file names


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
        self.sets = JobFolder(self.folder / "sets", read_scores, "score these again", name=self.file_name)
        self._changed: dict[ExpertSet, list[str]] = {}
        self.size = (evaluator.model.config.num_layers, evaluator.model.config.num_experts)
        job = self.folder / JOB_FILE
        if job.is_file() and self.sets.names():
            saved = load_json_object(job, "what the scores in the folder are of")
            others = [name for name, value in described.items() if saved.get(name) != value]
            if others:
                name = others[0]
                raise InputError(
                    f"--output_dir {self.folder} holds scores with {name} {_brief(saved.get(name))}, not "
                    f"{_brief(described[name])}; name another folder, or delete that one"
                )

    def file_name(self, experts: ExpertSet) -> str:
        name = self.name(experts)
        if len(name) <= MAX_NAME_LENGTH:
            return name
        return f"{len(experts)}_experts_{sha256_of([name])[:16]}"

    def name(self, experts: ExpertSet) -> str:
        """Returns the name of a set, such as `enc0.1+dec2.0`, layers and experts; `base` for none."""
        places = (f"{self.layer(row)}.{expert}".replace(" ", "") for row, expert in experts)
        return "+".join(places) or "base"

    def layer(self, row: int) -> str:
        """Returns the name of a row of the routes, such as "enc 0"."""
        return layer_names(self.evaluator.model.config.encoder_layers, [row])[0]

    def all_experts(self) -> list[ExpertSet]:
        """Returns one set for each expert of each layer with experts."""
        rows = self.evaluator.model.config.routed_rows
        return [((row, expert),) for row in rows for expert in range(self.size[1])]

    def mean_score(self) -> float:
        """Returns the score with all experts: mean over tasks of the mean over a task's files."""
        scores = self.finished(BASE).scores
        by_task = pd.DataFrame([(file.task, scores[file.sample]) for file in self.evaluator.files])
        return float(by_task.groupby(0)[1].mean().mean())

    # ---- scoring

    def finished(self, experts: ExpertSet) -> Scores | None:
        """Returns the scores of a set, None if it is not finished. Raises InputError for a damaged file."""
        return self.sets.finished(experts)

    def start(self) -> Scores:
        """Returns the scores with all experts, which are computed if they are missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / JOB_FILE, json.dumps(self.described, indent=1))
        return self.finished(BASE) or self._score(BASE, self.evaluator.tasks)

    def missing(self, sets: Iterable[ExpertSet]) -> dict[ExpertSet, list[str]]:
        """Returns {set that is not finished: tasks whose routes change without it}."""
        todo = dict.fromkeys(experts for experts in sets if self.finished(experts) is None)
        for experts in todo:
            if experts not in self._changed:
                self._changed[experts] = self.evaluator.changed(mask_of(experts, *self.size))
        return {experts: self._changed[experts] for experts in todo}

    def estimate(self, sets: Sequence[ExpertSet]) -> str:
        """Returns a line with the remaining work and its time, estimated from that of the base scores."""
        base, todo = self.start(), self.missing(sets)
        examples = sum(self.evaluator.examples_of(tasks) for tasks in todo.values())
        processes = self.evaluator.accelerator.num_processes
        seconds = examples * base.seconds / max(1, base.examples) / processes
        done = len(set(sets)) - len(todo)
        shared = f" in {processes} processes" if processes > 1 else ""
        return (
            f"{len(set(sets))} sets of experts to ablate, {done} finished; remaining: {examples} answers "
            f"with changed routes, about {_duration(seconds)}{shared} "
            f"({base.examples} took {base.seconds:.1f} s)"
        )

    def run(self, sets: Sequence[ExpertSet]) -> None:
        """Scores the missing sets, divided among the processes; returns when all processes are done."""
        accelerator = self.evaluator.accelerator
        # Only the main process reads the finished sets, because other processes may be writing files.
        todo = on_main(accelerator, lambda: self.missing(sets))
        own = list(todo.items())[accelerator.process_index :: accelerator.num_processes]
        total = sum(self.evaluator.examples_of(tasks) for _, tasks in own)
        quiet = not accelerator.is_main_process
        with tqdm(total=total, desc="ablating", unit="answer", disable=quiet) as bar:
            for experts, tasks in own:
                bar.set_postfix_str(self.name(experts)[:30], refresh=False)
                self._score(experts, tasks)
                bar.update(self.evaluator.examples_of(tasks))
        accelerator.wait_for_everyone()

    def _score(self, experts: ExpertSet, tasks: Sequence[str]) -> Scores:
        began = time.perf_counter()
        ablated_LE = mask_of(experts, *self.size) if experts else None
        scores = self.evaluator.scores(self.evaluator.routes(ablated_LE), tasks)
        found = Scores(scores, time.perf_counter() - began, self.evaluator.examples_of(tasks))
        self.sets.write(experts, json.dumps(vars(found)).encode())
        return found


def read_scores(path: Path) -> Scores:
    saved = load_json_object(path, "scores without some experts")
    return Scores(dict(saved["scores"]), float(saved["seconds"]), int(saved["examples"]))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _brief(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
