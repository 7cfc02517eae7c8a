"""The flags of the commands that make tables of scores."""

from dataclasses import dataclass
from pathlib import Path

from dataloader.task_splits import SECTIONS
from routing_moe.config.choices import DESIGNS
from routing_moe.config.flags import NOT_NEGATIVE, REQUIRED, Command, Range, group
from routing_moe.config.measures import MEASURES, PERFORMANCE
from routing_moe.config.plugins import PluginFlags

SCORES = group("scores")
VARIANTS = group("variants")
RESULTS = group("results of fine-tuning")
GAINS = group("gains")
OF_CATEGORIES = group("scores by category")
WRITING = group("writing")
MEANS = ("cost", "dev", "test", "unseen")  # columns of the table of means
CATEGORIES = "categories"  # the table of scores by category
DESIGN_HELP = "what the intervals of differences cover. seeds: other seeds, with the tasks as fixed; seeds_and_tasks: other seeds and other tasks; tasks: other tasks, with the runs as fixed; auto: tasks with one seed, seeds with 2 to 4, seeds_and_tasks from 5"  # as docs/results/protocols/coverage.md says


def is_metric(column: str) -> bool:
    """Returns whether summaries may have the column: a part and a measure of the package or a plug-in."""
    part, _, measure = column.partition("_")
    return part in ("dev", "test") and measure in MEASURES


# fmt: off
@dataclass(frozen=True, kw_only=True)
class ShowSettings(PluginFlags):
    program = "routing-moe show-scores"

    run: Path = SCORES(REQUIRED, "run folder, or a hub name owner/name[@revision]", metavar="RUN", positional=True)
    checkpoint_name: str = SCORES("best", "checkpoint of the scores")
    predict_split: str = SCORES("train", "section of the split", choices=SECTIONS)
    prefix: str = SCORES("", "the --prefix that the scores were written with")


@dataclass(frozen=True, kw_only=True)
class CompareSettings(PluginFlags):
    program = "routing-moe compare"

    folders: tuple[Path, ...] = SCORES(REQUIRED, "a run, or a folder of runs or of <variant>/<run>/; the runs of a variant differ in seed", metavar="FOLDER", positional=True)
    columns: tuple[str, ...] = SCORES((*MEANS, CATEGORIES), f"what the tables show. cost: parameters, steps, FLOPs; dev, test: mean scores of train tasks; unseen: of tasks that were not trained on; {CATEGORIES}: a table with scores by category, differences with intervals, costs and dev scores during training", choices=(*MEANS, CATEGORIES), metavar="COLUMN")
    few_shot: Path | None = SCORES(None, "also mean scores after few-shot fine-tuning: holds <variant>/<run>/summary.csv of the runs of the same names", metavar="FOLDER")
    order: tuple[str, ...] = VARIANTS((), "variants that come first, as far as they have runs; others follow in the order of the folders, in a folder by name", metavar="VARIANT")
    gym_per_seed: bool = VARIANTS(False, "each seed has a gym of its own with tasks of the same names, such as conflict gyms: only runs of a seed must have the same gym, and scores are not divided by category")
    recovery: tuple[str, ...] = VARIANTS((), "beside mean scores, and in recovery.csv, how well routes agree with these kinds of features of the train tasks: skill for the columns skill:... of the gym's skills.csv, or category", metavar="KIND")
    baseline: str | None = OF_CATEGORIES(None, "also the difference to this variant, paired by seed and task", metavar="VARIANT")
    contrasts: tuple[str, ...] = OF_CATEGORIES((), "also the differences A minus B of these variants, in one family with those of --baseline", metavar="A:B")
    measures: tuple[str, ...] = OF_CATEGORIES((PERFORMANCE,), "what is compared, a table each: performance, the task's metric; answer_loss, of the answers in nats per token; rank_accuracy, of the best-ranked option; or one of --plugin. Scores have others than performance with --measures of the prediction", choices=MEASURES)
    primary: tuple[str, ...] = OF_CATEGORIES((), "measures whose p-values are corrected, all in one family with all contrasts (default: the first of --measures)", choices=MEASURES)
    design: str = OF_CATEGORIES("auto", f"{DESIGN_HELP}; with --gym_per_seed seeds, which then covers other gyms", choices=DESIGNS)
    part: str = OF_CATEGORIES("test", "files that are scored", choices=("dev", "test"))
    predict_split: str = OF_CATEGORIES("train", "section of the split", choices=SECTIONS)
    checkpoint_name: str = OF_CATEGORIES("best", "checkpoint of the scores")
    prefix: str = OF_CATEGORIES("", "the --prefix that the scores were written with")
    task_ontology: Path | None = OF_CATEGORIES(None, "ontology file (default: that of the runs)")
    output_dir: Path | None = WRITING(None, "folder to write (default: FOLDER; of several, results_summary/CMP_<names>)")

    @property
    def where_scored(self) -> str:
        return f"on the {self.part} files of the {self.predict_split} tasks"


@dataclass(frozen=True, kw_only=True)
class CollectSettings(Command):
    program = "routing-moe collect-results"

    logs_dir: Path = RESULTS(REQUIRED, "folder of the tasks' folders")
    postfix: str = RESULTS("_best", "suffix of the rows to read")
    tasks: tuple[str, ...] | None = RESULTS(None, "only these tasks (default: all tasks with a folder)", metavar="TASK")
    custom_tasks_splits: Path | None = RESULTS(None, "only the tasks of a section of this split", metavar="FILE")
    section: str | None = RESULTS(None, "section of the split (default: test)", choices=(*SECTIONS, "all"))
    output_file: Path = WRITING(REQUIRED, "CSV file to write")


@dataclass(frozen=True, kw_only=True)
class GainSettings(PluginFlags):
    program = "routing-moe compute-arg"

    folders: tuple[Path, ...] = GAINS((), "runs, the baseline first, or a folder of runs or of <system>/<run>/; compared are their summary.csv of collect_results or, if all FOLDERs lack one, scores of --do_predict of unseen tasks, else of train tasks. Runs are paired by the name of their folders", metavar="FOLDER", positional=True)
    baseline: str | None = GAINS(None, "the baseline among the systems of FOLDER (default: the first of several runs)", metavar="NAME")
    summary1: Path | None = GAINS(None, "summary of the baseline: a table of collect_results, or scores of --do_predict", metavar="CSV")
    summary2: tuple[Path, ...] = GAINS((), "summaries of the systems, of either kind", metavar="CSV")
    names: tuple[str, ...] | None = GAINS(None, "names of the baseline and each system (default: file names)", metavar="NAME")
    metric: str = GAINS("test_performance", "column of the summaries; of scores of --do_predict, the part and the column. Lower answer_loss is better", range=Range(is_metric, "test_ or dev_ and a measure, such as test_answer_loss"))
    design: str = GAINS("auto", DESIGN_HELP, choices=DESIGNS)
    min_baseline: float = GAINS(0.01, "no relative gain if the baseline is at most this", range=NOT_NEGATIVE, metavar="SCORE")
    output_file: Path | None = WRITING(None, "the other files have the same stem (default: results_summary/CMP_<baseline>_<systems>.csv)", metavar="CSV")
# fmt: on
