"""A grid of configurations in a folder: runs the missing ones, tabulates the finished ones.

    run.json  log.txt  results.csv
    configurations/<sample>_lr<lr>_bsz<bsz>.json      a finished configuration: scores, curve
    predictions/<sample>_best_test.jsonl               of each sample's best; of others until it is known
    models/<sample>_best/                              with --save_best

See `JobFolder` for how an interrupted or extended grid continues. results.csv is a function of
configurations/.
"""

import contextlib
import dataclasses
import json
import logging
import shutil
import zlib
from operator import attrgetter
from pathlib import Path

import pandas as pd

from dataloader.atomic_files import flush, write_text
from dataloader.errors import InputError, problem_context
from dataloader.executor import Outcomes, run_calls
from dataloader.gym import PARTS, Gym
from dataloader.jsonfile import load_json_object
from dataloader.options import find_options
from dataloader.progress import ProgressBar
from routing_moe.checkpoints.find import SavedMixture, SavedPlain, checksums
from routing_moe.config.finetune import Configuration, FinetuneSettings
from routing_moe.config.measures import MEASURES, PERFORMANCE, goodness, words_of
from routing_moe.io.job_folder import JobFolder
from routing_moe.results.few_shot import BEST, RESULT_FILES, SELECT_BY
from routing_moe.results.markdown import mean_and_std
from routing_moe.results.run_cost import TRAINING_COST
from routing_moe.task_choice.given_routes import given_checksums

RESULTS_FILE = RESULT_FILES[0]

log = logging.getLogger(__name__)


class Grid:
    """The configurations of a task in `settings.output_dir`: those wanted now, and those of before.

    outcomes: {configuration: its result} of the finished ones. samples: of all configurations.
    """

    def __init__(self, settings: FinetuneSettings, gym: Gym):
        self.settings, self.gym, self.folder = settings, gym, Path(settings.output_dir)
        self.wanted = self.configurations = settings.configurations()
        scores = [f"{part}_{name}" for name in settings.measures for part in ("dev", "test")]
        self.columns = ["prefix", "lr", "bsz", *scores, "best_step", "route", "vector_seen", *TRAINING_COST]
        self.outcomes: dict[Configuration, dict] = {}
        redo, name = "run that configuration again", attrgetter("name")
        self.files = JobFolder(self.folder / "configurations", self.read_outcome, redo, name=name)

    def read_outcome(self, path: Path) -> dict:
        outcome = load_json_object(path, "the outcome of a configuration")
        if not outcome.keys() >= {*self.columns, "data"}:
            raise ValueError("keys are missing")  # which `JobFolder` reports
        return outcome

    def load(self, start: dict[str, str]) -> None:
        """Reads the files of finished configurations. start: checksums of the start's weights."""
        self.start, run = start, self.folder / "run.json"
        saved = load_json_object(run, "the description of a grid") if run.is_file() else {}
        before = [Configuration(*point) for point in saved.get("configurations", ())]
        finished = {c for c in before if self.files.path(c).is_file()}
        if finished and saved.get("start") != start:
            raise InputError(
                f"--output_dir {self.folder}: its grid started from other files (weights, settings, task "
                f"vectors) than those of {self.settings.start.described} and the flags; name another folder"
            )
        # Begun samples that are not wanted now stay incomplete: their best is not yet known.
        begun = {c.prefix for c in finished} - {c.prefix for c in self.wanted}
        kept = finished.union(c for c in before if c.prefix in begun)
        self.configurations = sorted(kept.union(self.wanted))
        self.samples = list(dict.fromkeys(c.prefix for c in self.configurations))
        self.data = {sample: data_checksum(self.gym, self.settings, sample) for sample in self.samples}
        for configuration in self.configurations:
            outcome, sample = self.files.finished(configuration), configuration.prefix
            if outcome and outcome["data"] != self.data[sample]:
                advice = "restore the old files, or name another --output_dir"
                path = self.files.path(configuration)
                raise InputError(f"{path} is of other data than the files of {sample} hold now; {advice}")
            if outcome:
                self.outcomes[configuration] = outcome

    @property
    def missing(self) -> list[Configuration]:
        """The wanted configurations that are not finished."""
        return [c for c in self.wanted if c not in self.outcomes]

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

    def configurations_of(self, sample: str) -> list[Configuration]:
        return [c for c in self.configurations if c.prefix == sample]

    def is_complete(self, sample: str) -> bool:
        return all(c in self.outcomes for c in self.configurations_of(sample))

    def best_of(self, sample: str) -> Configuration | None:
        """Returns the first configuration with the best dev value of `--select_by`, if all are finished."""
        if not self.is_complete(sample):
            return None
        by = self.settings.select_by
        dev = {c: self.outcomes[c][f"dev_{by}"] for c in self.configurations_of(sample)}
        scored = [c for c in dev if dev[c] is not None]
        return max(scored, key=lambda c: goodness(dev[c], by), default=None)

    def table(self) -> pd.DataFrame:
        """Returns a row per finished configuration; after a sample's rows its best, as `<sample>_best`."""
        rows = []
        for sample in self.samples:
            rows += [self.outcomes[c] for c in self.configurations_of(sample) if c in self.outcomes]
            if best := self.best_of(sample):
                rows.append(self.outcomes[best] | {"prefix": sample + BEST})
        return pd.DataFrame(rows, columns=self.columns).assign(**{SELECT_BY: self.settings.select_by})

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
            for configuration in self.configurations_of(sample):
                remove(place(configuration.name))


def start_checksums(settings: FinetuneSettings, start: SavedMixture | SavedPlain) -> dict[str, str]:
    """Returns the SHA-256 of the files that determine the start: model, given vectors and routes."""
    is_checkpoint = isinstance(start, SavedPlain) and start.place == settings.checkpoint
    with problem_context("--checkpoint " if is_checkpoint else "--model "):  # a hub name is downloaded
        sums = checksums(start)
    return sums | given_checksums(
        settings.task_routes, taskvecs=settings.taskvecs, text_vectors=settings.text_vectors
    )


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def data_checksum(gym: Gym, settings: FinetuneSettings, sample: str) -> int:
    """Returns a checksum of the texts of the sample's files, the metric, and the labels to rank, if any."""
    task = settings.task
    options = find_options(task, gym.metric(task), [gym]) if settings.reads_options else None
    examples = {}
    for part in PARTS:
        with contextlib.suppress(InputError):  # no test file, and none is needed
            examples[part] = gym.examples(task, part, sample)
    turns = [example.before for rows in examples.values() for example in rows if example.before]
    return zlib.crc32(repr((gym.metric(task), options, examples, *turns)).encode())


# ---- running


def run_grid(settings: FinetuneSettings, grid: Grid) -> dict[str, Exception]:
    """Runs the missing configurations. Returns {line: error} of those that failed. Raises InputError."""
    (grid.folder / "predictions").mkdir(parents=True, exist_ok=True)
    missing, failed = grid.missing, {}
    total, done = len(grid.wanted), len(grid.wanted) - len(missing)
    log.info("%d configurations of %s, %d of them finished already", total, settings.task, done)
    log.info("start: %s", settings.start.described)

    def keep(configuration: Configuration, outcome: dict) -> None:
        grid.keep(configuration, outcome)
        log.info("%s: %s", configuration, in_words(outcome))

    if missing:
        bar = ProgressBar(total=total, initial=done, desc=settings.task, unit="run", disable=settings.quiet)
        failed = grid.files.collect(outcomes_of(settings, missing), keep, bar)
    grid.write_results()
    for sample in grid.samples:
        grid.tidy(sample)
    return failed


def outcomes_of(settings: FinetuneSettings, missing: list[Configuration]) -> Outcomes:
    """Yields (configuration, result of `run_configuration` or its error), in the order in which they end."""
    from routing_moe.finetuning import trial  # imports torch, which takes seconds

    if settings.num_workers > 1:
        settings = dataclasses.replace(settings, quiet=True)
    calls = {configuration: (settings, configuration) for configuration in missing}
    try:
        yield from run_calls(trial.run_configuration, calls, settings.num_workers)
    finally:
        trial._runners.clear()


def in_words(outcome: dict) -> str:
    """Returns an outcome in words, for the log."""
    scores = []
    for part in ("dev", "test"):
        values = {words_of(name): outcome.get(f"{part}_{name}") for name in MEASURES}
        known = ", ".join(f"{name} {value:.4f}" for name, value in values.items() if value is not None)
        scores += [f"{part} {known}"] if known else []
    scores = ", ".join(scores) + f" (step {outcome['best_step']})" if scores else "no dev score"
    diverged = f"; {outcome['diverged']}" if outcome["diverged"] else ""
    return f"{scores}{diverged}; {outcome['seconds']:.1f} s, {outcome['peak_memory_gb']:.2f} GB"


def report(grid: Grid) -> bool:
    """Logs the mean best scores over samples, and samples without a score; returns whether all have one."""
    best, by = grid.table(), grid.settings.select_by
    best = best[best["prefix"].str.endswith(BEST)]
    scores = ", ".join(
        f"{part} {words_of(measure)} {mean_and_std(best[column].mean(), best[column].std())}"
        for measure in grid.settings.measures
        for part in ("dev", "test")
        if best[column := f"{part}_{measure}"].notna().any()
    )
    chosen = f" by dev {words_of(by)}" if by != PERFORMANCE else ""
    what = f"{grid.settings.task}: best of {len(best)} samples{chosen}"
    log.info("%s: %s; %s", what, scores or "none", grid.folder / RESULTS_FILE)
    unscored = [s for s in grid.samples if grid.is_complete(s) and grid.best_of(s) is None]
    for sample in unscored:
        log.error("%s: no configuration has a dev score, all diverged; try lower rates", sample)
    return not unscored
