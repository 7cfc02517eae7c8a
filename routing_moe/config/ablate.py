"""The flags of `routing-moe ablate` and `routing-moe transfer`, which score a run again."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from dataloader.errors import InputError
from dataloader.task_splits import SECTIONS
from routing_moe.config.choices import FOUND_BY_RULE, PRECISIONS, SCORINGS
from routing_moe.config.flags import AT_LEAST_1, REQUIRED, SEED, Range, flags_of, group
from routing_moe.config.plugins import PluginFlags
from routing_moe.config.shared import GivenReading
from routing_moe.config.train import TrainSettings, train_settings
from routing_moe.io.hub import folder_of_run, is_on_hub
from routing_moe.io.run_folder import settings_of_run

EXPERTS = group("what is ablated")
HOW_SCORED = "how tasks are scored"
SCORES = group(HOW_SCORED)  # the same flags as those of `routing-moe train --do_predict`
WHAT = group("what is compared")
GROUPS = group("groups")
RUNNING = group("running")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class AblationSettings(PluginFlags):
    """prediction: the settings of `train --do_predict` that scores depend on, from the run and these flags."""

    program = "routing-moe ablate"

    run: Path = EXPERTS(REQUIRED, "run folder, or a hub name owner/name[@revision]", positional=True, metavar="RUN")
    experts: tuple[str, ...] = EXPERTS(("all",), "each of these alone. all: every expert of every layer; none: only those of --features; or names such as enc0.1 (expert 1 of encoder layer 0)", metavar="EXPERT")
    features: tuple[str, ...] = EXPERTS((), "also ablate the top experts of each of these features, such as skill:negation, together; all: every feature that at least three tasks have and at least three lack (default: none)", metavar="FEATURE")
    top: int = EXPERTS(3, "number of top experts of a feature: those whose weight correlates most with it", range=Range(lambda n: 1 <= n <= 12, "from 1 to 12"))  # a set's name, which names a file, stays short
    feature_file: Path | None = EXPERTS(None, "CSV file of features: task, kind:value, ... (default: the gym's skills.csv, else that of the 160 CrossFit tasks)")
    routes: str = EXPERTS("soft", "weights that are correlated with features. soft: the softmax; chosen: one-hot, the expert of largest weight in each layer", choices=("soft", "chosen"))

    part: str = SCORES("dev", "which files are scored; dev by default, so that test files affect no choice", choices=("dev", "test"))
    max_examples: int | None = SCORES(None, "maximum number of examples of each file, evenly spaced (default: all)", range=AT_LEAST_1)
    predict_split: str | None = SCORES(None, "which tasks of the split (default: train)", choices=SECTIONS)
    predict_samples: str | None = SCORES(None, "which samples of a task: first, all, or a seed such as 100 (default: first)")
    checkpoint_name: str | None = SCORES(None, "which checkpoint of the run (default: best)")
    train_dir: str | None = SCORES(None, "gym folder (default: that of the run)")
    predict_dir: str | None = SCORES(None, "gym folder of dev and test files (default: that of the run)")
    custom_tasks_splits: str | None = SCORES(None, "split file (default: that of the run)")
    task_ontology: str | None = SCORES(None, "ontology file (default: that of the run)")
    scoring: str | None = SCORES(None, "how answers are made (default: as in the run)", choices=SCORINGS)
    num_beams: int | None = SCORES(None, "beams of generation (default: as in the run)")
    predict_batch_size: int | None = SCORES(None, "examples of 512 input tokens that are answered at once (default: as in the run)")
    task_vector: str | None = SCORES(None, "which vectors unseen tasks get (default: auto, as in predictions)", choices=FOUND_BY_RULE)
    text_vectors: str | None = SCORES(None, "vectors by which the nearest task is found (default: computed)")
    mixed_precision: str | None = SCORES(None, "precision of matrix products, as for training", choices=PRECISIONS)

    output_dir: Path | None = RUNNING(None, "folder of scores, tables and pictures (default: RUN/analysis/ablation)")

    prediction: TrainSettings | None = None


@dataclass(frozen=True, kw_only=True)
class TransferSettings(GivenReading):
    program = "routing-moe transfer"
    groups = ("what is compared", "groups", "running")

    run: Path = WHAT(REQUIRED, "run with an expert for each task (train --task_routes tasks), or a mixture of assemble", positional=True, metavar="RUN")
    train_dir: str | None = WHAT(None, "gym folder (default: that of the run)")
    tables: tuple[str, ...] = WHAT((), "instead of a gym: a table with labelled rows of each task (.csv, .tsv, .jsonl, .parquet)", metavar="NAME=TABLE")
    input: str = WHAT("{input}", "with --tables: the text of a row, with columns in braces", metavar="TEXT")
    output: str = WHAT("{output}", "with --tables: its answer, with columns in braces", metavar="TEXT")
    checkpoint_name: str | None = WHAT(None, "which checkpoint of a run (default: best)")
    rows: int = WHAT(16, "most rows of each task, evenly spaced: all are read once along each expert", range=AT_LEAST_1)
    columns: int = WHAT(256, "most experts that are compared; of more tasks, so many are drawn, and the others join the group whose experts they gain most from. A sample needs about three tasks of each group", range=AT_LEAST_1)
    seed: int = WHAT(42, "seed of the sample", range=SEED)

    advantage: float = GROUPS(0.0, "one group unless the mean of the experts of a task's mates, on average over its rows, loses so much less than the mean of all experts, in nats per row", range=Range(lambda value: value == value, "a number"), metavar="NATS")

    output_dir: Path | None = RUNNING(None, "folder of tables, groups and picture (default: RUN/transfer)")
    mixed_precision: str | None = RUNNING(None, "precision of matrix products (default: that of the run)", choices=PRECISIONS)

    @property
    def folder(self) -> Path:
        """The folder of the tables."""
        return self.output_dir or self.run / "transfer"
# fmt: on


def ablation_settings(given: Mapping) -> AblationSettings:
    """Returns the settings of the given flags. Raises InputError if the run is missing or cannot be read."""
    settings = AblationSettings(**given)
    if settings.output_dir is None and is_on_hub(settings.run):
        raise InputError(f"--output_dir: must be given for a run of the hub, {settings.run}")
    run = folder_of_run(settings.run)
    settings_of_run(run)
    scores = [name for name, flag in flags_of(settings).items() if flag.group == HOW_SCORED]
    known = {field.name for field in fields(TrainSettings)}
    of_scores = {name: given[name] for name in (*scores, "plugin") if name in given and name in known}
    folders = {"output_dir": str(run)}
    if (run / "config.json").is_file():  # a shared run, whose checkpoint is the folder itself
        folders = {"output_dir": str(settings.output_dir or run), "checkpoint": str(settings.run)}
    prediction = train_settings({"do_predict": True, **folders, **of_scores})
    output_dir = settings.output_dir or settings.run / "analysis" / "ablation"
    return replace(settings, prediction=prediction, output_dir=output_dir)
