"""A grid of configurations in a folder: runs the missing ones, tabulates the finished ones.

    run.json  log.txt  results.csv  task_vector.json
    configurations/<sample>_lr<lr>_bsz<bsz>.json      a finished configuration: scores, curve
    predictions/<sample>_best_test.jsonl               of each sample's best; of others until it is known
    models/<sample>_best/                              with --save_best

See `JobFolder` for how an interrupted or extended grid continues. results.csv is a function of
configurations/.
"""

import dataclasses
import json
import logging
import shutil
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from dataloader.atomic_files import flush, write_text
from dataloader.checksums import sha256
from dataloader.errors import InputError, problem_context
from dataloader.gym import Gym
from dataloader.jsonfile import load_json_object
from dataloader.options import find_options
from dataloader.progress import ProgressBar
from routing_moe.checkpoints.find import SavedBart, SavedMixture
from routing_moe.config.choices import MEASURES
from routing_moe.config.finetune import Configuration, FinetuneSettings
from routing_moe.config.shared import FORMAT_FLAGS, Start
from routing_moe.io.executor import Outcomes, run_calls
from routing_moe.io.job_folder import JobFolder
from routing_moe.model.given_routes import ROUTE_TASKS_FILE
from routing_moe.model.task_vectors import NAMES_FILE, VECTORS_FILE
from routing_moe.results.few_shot import BEST, RESULT_FILES, SELECT_BY, of_measure
from routing_moe.results.markdown import mean_and_std
from routing_moe.results.run_cost import TRAINING_COST
from routing_moe.results.scores import goodness
from routing_moe.task_choice.choice import TaskChoice
from routing_moe.task_choice.given_routes import names_file

RESULTS_FILE = RESULT_FILES[0]

log = logging.getLogger(__name__)


class Grid:
    """The configurations of a task in `settings.output_dir`: wanted now, or finished before."""

    def __init__(self, settings: FinetuneSettings, gym: Gym):
        self.settings, self.gym, self.folder = settings, gym, Path(settings.output_dir)
        self.wanted = self.configurations = settings.configurations()
        self.columns = columns_of(settings.measures)
        self.outcomes: dict[Configuration, dict] = {}
        self.files = JobFolder(
            self.folder / "configurations",
            partial(read_outcome, columns=self.columns),
            "run that configuration again",
            name=lambda configuration: configuration.name,
        )

    def load(self, start: dict[str, str]) -> None:
        """Reads the files of finished configurations. start: checksums of the start's weights.

        Raises InputError for a broken file, or if the data or the start were different.
        """
        self.start, run = start, self.folder / "run.json"
        saved = load_json_object(run, "the description of a grid") if run.is_file() else {}
        try:
            before = [Configuration(*point) for point in saved.get("configurations", ())]
            sorted(before)
        except TypeError:
            raise InputError(f"{run} is damaged; delete {self.folder}, or name another folder") from None
        finished = {c for c in before if self.files.path(c).is_file()}
        if finished and saved.get("start") != start:
            raise InputError(
                f"--output_dir {self.folder}: its grid started from other files (weights, settings, task "
                f"vectors) than those of {self.settings.start.described} and the flags; name another folder"
            )
        self.configurations = sorted(finished.union(self.wanted))
        self.samples = list(dict.fromkeys(c.prefix for c in self.configurations))
        task, options = self.settings.task, self.settings.reads_options
        self.data = {sample: data_checksum(self.gym, task, sample, options) for sample in self.samples}
        for configuration in self.configurations:
            outcome = self.files.finished(configuration)
            if outcome is None:
                continue
            if outcome["data"] != self.data[configuration.prefix]:
                path, sample = self.files.path(configuration), configuration.prefix
                raise InputError(
                    f"{path} is of other data than the files of {sample} hold now; restore the old files, "
                    "or name another --output_dir"
                )
            self.outcomes[configuration] = outcome

    @property
    def missing(self) -> list[Configuration]:
        """The wanted configurations that are not finished."""
        return [c for c in self.wanted if c not in self.outcomes]

    def described(self) -> dict:
        """Returns what run.json records of the grid besides the settings."""
        return {"start": self.start, "configurations": [dataclasses.astuple(c) for c in self.configurations]}

    def keep(self, configuration: Configuration, outcome: dict) -> None:
        """Writes a configuration's predictions, then its file, then the tables."""
        for part, lines in outcome.pop("predictions").items():
            write_text(self.predictions(configuration.name, part), lines)
        outcome["data"] = self.data[configuration.prefix]
        self.files.write(configuration, json.dumps(outcome, indent=1).encode())
        self.outcomes[configuration] = outcome
        self.write_results()
        self.tidy(configuration.prefix)

    def predictions(self, name: str, part: str = "test") -> Path:
        return self.folder / "predictions" / f"{name}_{part}.jsonl"

    # ---- tables

    def of(self, sample: str) -> list[Configuration]:
        """Returns the sample's configurations."""
        return [c for c in self.configurations if c.prefix == sample]

    def is_complete(self, sample: str) -> bool:
        return all(c in self.outcomes for c in self.of(sample))

    def best_of(self, sample: str) -> Configuration | None:
        """Returns the first configuration with the best dev score, or None if some are unfinished.

        The score is that of `--select_by`.
        """
        if not self.is_complete(sample):
            return None
        by = self.settings.select_by
        dev = {c: self.outcomes[c][f"dev_{by}"] for c in self.of(sample)}
        scored = [c for c in dev if dev[c] is not None]
        return max(scored, key=lambda c: goodness(dev[c], by), default=None)

    def table(self) -> pd.DataFrame:
        """Returns a row per finished configuration; after a sample's rows its best, as `<sample>_best`."""
        rows = []
        for sample in self.samples:
            rows += [self.row(c) for c in self.of(sample) if c in self.outcomes]
            if best := self.best_of(sample):
                rows.append(self.row(best) | {"prefix": sample + BEST})
        return pd.DataFrame(rows, columns=[*self.columns, SELECT_BY])

    def row(self, configuration: Configuration) -> dict:
        outcome = {name: self.outcomes[configuration][name] for name in self.columns}
        return outcome | {SELECT_BY: self.settings.select_by}

    def write_results(self) -> None:
        write_text(self.folder / RESULTS_FILE, self.table().to_csv())

    def tidy(self, sample: str) -> None:
        """Once a sample's best is known, deletes predictions and models of its other configurations."""
        best = self.best_of(sample)
        if best is None:
            return
        for place in (self.predictions, self.settings.model_folder):
            if place(best.name).exists():
                remove(place(sample + BEST))
                place(best.name).rename(place(sample + BEST))
                flush(place(sample + BEST).parent)
            for other in self.of(sample):
                remove(place(other.name))

    def unscored_samples(self) -> list[str]:
        """Returns a line for each sample whose configurations all ended without a dev score."""
        return [
            f"{sample}: no configuration has a dev score, all diverged before the first; try lower rates"
            for sample in self.samples
            if self.is_complete(sample) and self.best_of(sample) is None
        ]


def columns_of(measures: Sequence[str]) -> list[str]:
    """Returns the columns of results.csv that are known of each configuration alone."""
    scores = [name for measure in measures for name in of_measure(measure)]
    return ["prefix", "lr", "bsz", *scores, "best_step", "route", "vector_seen", *TRAINING_COST]


def read_outcome(path: Path, columns: list[str]) -> dict:
    outcome = load_json_object(path, "the outcome of a configuration")
    if not outcome.keys() >= {*columns, "data"}:
        raise ValueError("keys are missing")
    kinds = {"prefix": str, "route": str, "vector_seen": str | None}
    if not all(isinstance(outcome[name], kinds.get(name, int | float | None)) for name in columns):
        raise ValueError("a value is of another type")
    return outcome


def start_checksums(
    start: Start, model: SavedMixture | SavedBart, text_vectors: str | None
) -> dict[str, str]:
    """Returns the SHA-256 of the files that determine the start: model, given vectors and routes.

    model: that of the start, found on disk. text_vectors: the folder of --text_vectors.
    """
    is_checkpoint = isinstance(model, SavedBart) and model.source == start.checkpoint
    with problem_context("--checkpoint " if is_checkpoint else "--model "):  # a hub name is downloaded
        sums = model.checksums()
    for flag, folder in (("taskvecs", start.vectors), ("text_vectors", text_vectors)):
        if folder:
            files = {f"--{flag} {name}": Path(folder) / name for name in (NAMES_FILE, VECTORS_FILE)}
            sums |= {name: sha256(file) for name, file in files.items() if file.is_file()}
    if start.routes and names_file(start.routes):
        path = Path(start.routes)
        files = [path, path.with_name(ROUTE_TASKS_FILE)] if path.suffix == ".npy" else [path]
        sums |= {f"--task_routes {number}": sha256(file) for number, file in enumerate(files)}
    return sums


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def data_checksum(gym: Gym, task: str, sample: str, reads_options: bool) -> int:
    """Returns a checksum of the texts of all the sample's files, the metric and the labels to rank.

    The labels come from the train files of all samples.
    """
    checksum = zlib.crc32(gym.metric(task).encode())
    if reads_options:
        checksum = zlib.crc32(repr(find_options(task, gym.metric(task), [gym])).encode(), checksum)
    for part in ("train", "dev", "test"):
        try:
            examples = gym.examples(task, part, sample)
        except InputError:  # no test file, and none is needed
            continue
        for example in examples:
            texts = (part, example.input, example.outputs, example.options)
            checksum = zlib.crc32(repr(texts).encode(), checksum)
    return checksum


# ---- running


def run_grid(
    settings: FinetuneSettings,
    grid: Grid,
    choice: Mapping[str, TaskChoice] | None,
) -> dict[str, Exception]:
    """Runs the missing configurations. Returns {line: error} of those that failed. Raises InputError."""
    (grid.folder / "predictions").mkdir(parents=True, exist_ok=True)
    missing, failed, routes = grid.missing, {}, {"none"}
    total, done = len(grid.wanted), len(grid.wanted) - len(missing)
    log.info("%d configurations of %s, %d of them finished already", total, settings.task, done)
    shown = [f"--{name}" for name in FORMAT_FLAGS if getattr(settings, name)]
    log.info("start: %s%s", settings.start.described, f"; inputs: {' '.join(shown)}" if shown else "")

    def keep(configuration: Configuration, outcome: dict) -> None:
        grid.keep(configuration, outcome)
        log.info("%s: %s", configuration, in_words(outcome))
        if (route := outcome["route"]) not in routes:
            seen = outcome["vector_seen"]
            seen = f"; has seen of the task: {seen}" if seen else ""
            log.debug("route of %s: %s%s", configuration.prefix, route, seen)
        routes.add(route)

    if missing:
        bar = ProgressBar(total=total, initial=done, desc=settings.task, unit="run", disable=settings.quiet)
        failed = grid.files.collect(outcomes_of(settings, choice, missing), keep, bar)
    grid.write_results()
    for sample in grid.samples:
        grid.tidy(sample)
    return failed


def outcomes_of(
    settings: FinetuneSettings, choice: Mapping[str, TaskChoice] | None, missing: list[Configuration]
) -> Outcomes:
    """Yields (configuration, result of `run_configuration` or its error), in the order in which they end."""
    from routing_moe.finetuning import trial  # imports torch, which takes seconds

    if settings.num_workers > 1:
        settings = dataclasses.replace(settings, quiet=True)
    calls = {configuration: (settings, choice, configuration) for configuration in missing}
    try:
        yield from run_calls(trial.run_configuration, calls, settings.num_workers)
    finally:
        trial._runners.clear()


def in_words(outcome: dict) -> str:
    """Returns an outcome in words, for the log."""
    dev, test = (values_of(outcome, part) for part in ("dev", "test"))
    text = f"dev {dev} (step {outcome['best_step']})" if dev else "no dev score"
    text += f", test {test}" if test else ""
    text += f"; {outcome['diverged']}" if outcome["diverged"] else ""
    return f"{text}; {outcome['seconds']:.1f} s, {outcome['peak_memory_gb']:.2f} GB"


def values_of(outcome: dict, part: str) -> str:
    """Returns the scores of an outcome's dev or test file, such as "0.5000, answer loss 1.2345"."""
    values = {name: outcome.get(f"{part}_{name}") for name in MEASURES}
    known = {name: value for name, value in values.items() if value is not None}
    return ", ".join(f"{words_of(name)}{value:.4f}" for name, value in known.items())


def words_of(measure: str) -> str:
    return "" if measure == MEASURES[0] else f"{measure.replace('_', ' ')} "


def summary(grid: Grid) -> str:
    """Returns mean and sample standard deviation of the best scores over samples."""
    best = grid.table()
    best = best[best["prefix"].str.endswith(BEST)]
    scores = ", ".join(
        f"{part} {words_of(measure)}{mean_and_std(best[column].mean(), best[column].std())}"
        for measure in grid.settings.measures
        for part, column in zip(("dev", "test"), of_measure(measure), strict=True)
        if best[column].notna().any()
    )
    n, results = len(best), grid.folder / RESULTS_FILE
    by = grid.settings.select_by
    by = f" by dev {by.replace('_', ' ')}" if by != MEASURES[0] else ""
    return f"{grid.settings.task}: best of {n} samples{by}: {scores or 'none'}; {results}"
