"""Reproduce the study: vectors, every routing and baseline, both stages, zero-shot scores, few-shot grids, tables, figures.

    bash example_scripts/reproduce_paper.sh                                        small, on the embedded gym
    bash example_scripts/reproduce_paper.sh --model facebook/bart-base             the published settings, on data/gym
    bash example_scripts/reproduce_paper.sh --model facebook/bart-base --jobs 8    with a GPU for each of 8 runs

All results are in --output_dir: vectors/, runs/<variant>/seed<seed>/, few_shot/<start>/seed<seed>/, tables/, logs/. A run is a
folder, finished when its result file exists: the same command continues after Ctrl-C or a failure. A run that fails is
listed at the end; the runs that need it are skipped. Of two defaults in the help, the second is that with the embedded tiny
BART. Learning rates of training are those of recipes.py.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from dataloader.errors import Problems, problem_context
from dataloader.gym import Gym, own_split
from dataloader.list_tasks import tasks_named
from dataloader.recipes import GONE
from dataloader.task_splits import load_split
from routing_moe.config.flags import AT_LEAST_1, NOT_NEGATIVE, SEED, Range, group
from routing_moe.studies.paper_runs import PaperRuns
from routing_moe.studies.paper_tables import write_tables
from routing_moe.studies.recipes import (
    CLUSTERS,
    GYMS,
    SKILL,
    DataFlags,
    TrainingRecipe,
    command,
    given_of,
    in_package,
    is_tiny,
    number,
)
from routing_moe.studies.runs import call_here, minutes, report_unfinished
from routing_moe.studies.study import RUNNING, Study, run_study
from routing_moe.studies.variants import VARIANTS

WHAT, TRAINING, FEW_SHOT = group("what is run"), group("training"), group("few-shot fine-tuning")
VECTORS, FLAGS = group("task vectors and clusters"), group("further flags of commands")
PUBLISHED = (
    "multitask", "average", "random", "task_random", "softmax", "gumbel", "straight_through", "lstm", "transformer", "text",
    "fisher", "two_stage", "fisher_two_stage",
)  # fmt: skip
# not in the paper
ADDED = ("lora", "poly", "mhr", "gradient_routing", "gradient_upcycled", "fisher_clusters", "ontology")
ALL = (*PUBLISHED, *ADDED)
FIRST_STAGES = {"two_stage": "straight_through", "fisher_two_stage": "fisher"}
DIRECT = "direct"  # fine-tuning from --model itself
BUILT_GYM, BUILT_SPLIT = Path("data/gym"), Path("dataloader/splits/random.json")
SMALL_SPLIT = "paper_small_split.json"  # of the embedded gym: 8 train and 4 test tasks
SAMPLES = Range(
    lambda text: text in ("all", "first") or text.isdigit(), "all, first or seeds such as 100 13 21"
)


@dataclass(frozen=True, kw_only=True)
class PaperStudy(DataFlags, Study):
    # fmt: off
    program = "routing-moe study paper"

    output_dir: Path = RUNNING(Path("models/reproduce_paper"), "folder of all results", on_resume=True)
    jobs: int | None = RUNNING(None, "runs at the same time, which divide the cores, or the visible GPUs: as many as GPUs have one each (1; 2)", range=AT_LEAST_1, on_resume=True)
    num_workers: int | None = RUNNING(None, "fine-tuning configurations, or tasks of vectors, at the same time in each run, on its GPUs (1)", range=AT_LEAST_1, on_resume=True)
    variants: tuple[str, ...] = WHAT(PUBLISHED, "what to train; the first stage of a two-stage variant is added", choices=ALL, on_resume=True)
    starts: tuple[str, ...] | None = WHAT(None, "what to fine-tune: direct, which is --model itself, and names of --variants (default: all)", choices=(DIRECT, *ALL), on_resume=True)
    seeds: tuple[int, ...] = WHAT((42,), "seeds of each variant and start", range=SEED, on_resume=True)
    recovery: tuple[str, ...] = WHAT(("category",), "kinds of features that routes are compared with", on_resume=True)

    total_steps: int | None = TRAINING(None, "optimizer steps (30000; 100)", range=AT_LEAST_1)
    eval_period: int | None = TRAINING(None, "steps between evaluations (750; 100)", range=AT_LEAST_1)
    stage1_steps: int | None = TRAINING(None, "steps of the first of two stages (TOTAL_STEPS). With TOTAL_STEPS, it is the run of straight_through or fisher, else one of its own", range=AT_LEAST_1)
    stage2_steps: int | None = TRAINING(None, "steps of the second stage (2 * TOTAL_STEPS; TOTAL_STEPS)", range=AT_LEAST_1)
    stage2_eval_period: int | None = TRAINING(None, "steps between its evaluations (a twentieth of STAGE2_STEPS; EVAL_PERIOD)", range=AT_LEAST_1)
    dense_steps: int | None = TRAINING(None, "those of TOTAL_STEPS that gradient_routing and gradient_upcycled spend on the BART whose gradients they take, each on its own; the experts of gradient_upcycled start from its weights (a third)", range=AT_LEAST_1)
    init_eps: float | None = TRAINING(None, "standard deviation of the noise on each expert's weights (1e-8; 1e-2)", range=NOT_NEGATIVE)

    learning_rate_list: tuple[float, ...] | None = FEW_SHOT(None, "learning rates (1e-5 2e-5 5e-5; 1e-3)", range=NOT_NEGATIVE)
    bsz_list: tuple[int, ...] | None = FEW_SHOT(None, "batch sizes (2 4 8; 8)", range=AT_LEAST_1)
    samples: tuple[str, ...] = FEW_SHOT(("all",), "samples of each task: all, first, or seeds such as 100 13 21", range=SAMPLES)
    few_shot_steps: int | None = FEW_SHOT(None, "optimizer steps (1000; 40)", range=AT_LEAST_1)
    few_shot_eval_period: int | None = FEW_SHOT(None, "steps between evaluations (100; 20)", range=AT_LEAST_1)
    warmup_steps: int | None = FEW_SHOT(None, "steps in which the rate rises (100; 4)", range=NOT_NEGATIVE)

    dim: int | None = VECTORS(None, "dimension of the reduced Fisher vectors, less than the number of train tasks (64; 4)", range=AT_LEAST_1)
    vector_steps: int | None = VECTORS(None, "steps of each task's adapters for Fisher vectors (2500; 20)", range=AT_LEAST_1)
    clusters: str = VECTORS("auto", "number of clusters of gradient and of Fisher vectors, or auto: by silhouette; with :MIN-MAX, such as 8:4-20, also their sizes", range=CLUSTERS)

    text_flags: str = FLAGS("", 'flags on texts for all commands, such as "--do_lowercase --max_input_length 192"')
    train_flags: str = FLAGS("--predict_max_examples 100", "of all trainings and their scores of train tasks")
    router_flags: str = FLAGS("", "of trainings with a router")
    zero_shot_flags: str = FLAGS("", "of the scores of unseen tasks")
    few_shot_flags: str = FLAGS("", "of fine-tuning")
    vector_flags: str | None = FLAGS(None, 'of text and Fisher vectors ("--recipe published"; "--max_examples 32")')
    gradient_flags: str = FLAGS("", "of gradient vectors")
    ablate_flags: str = FLAGS("--features all", "of routing-moe ablate for the figures; none: no ablation")
    # fmt: on

    gym_is_given: bool = True  # False: data/gym, which is built if tasks are missing

    def resolved(self) -> "PaperStudy":
        """Fills in the defaults that go with the model, and the first stages of two-stage variants."""
        model = TrainingRecipe.chosen(self).model
        values = dict(SMALL if is_tiny(model) else PUBLISHED_VALUES)
        values |= given_of(self, values)
        total = values["total_steps"]
        gym, split = self.train_dir, self.custom_tasks_splits
        if gym is None and is_tiny(model):
            split = split or in_package("routing_moe.studies", SMALL_SPLIT)
        elif gym is None:
            gym, split = BUILT_GYM, split or BUILT_SPLIT
        stage2 = values.setdefault(
            "stage2_steps", self.stage2_steps or (total if is_tiny(model) else 2 * total)
        )
        period = values["eval_period"] if is_tiny(model) else max(1, stage2 // 20)
        first = self.stage1_steps or total
        added = [FIRST_STAGES[name] for name in self.variants if name in FIRST_STAGES and first == total]
        variants = tuple(dict.fromkeys((*self.variants, *added)))
        return replace(
            self,
            **values,
            model=model,
            train_dir=gym,
            custom_tasks_splits=split or gym / "split.json",
            gym_is_given=self.train_dir is not None or is_tiny(model),
            stage1_steps=first,
            stage2_eval_period=self.stage2_eval_period or period,
            dense_steps=self.dense_steps or -(-total // 3),
            variants=variants,
            starts=self.starts or (DIRECT, *(name for name in variants if name in ALL)),
        )

    @property
    def gym(self) -> Path:
        return self.train_dir or GYMS[SKILL]

    @property
    def missing(self) -> list[str]:
        """Tasks of the split that data/gym lacks, but for those whose source is gone; [] for a given gym."""
        there = Gym(self.gym).tasks() if self.gym.is_dir() else []
        tasks = [] if self.gym_is_given else tasks_named(["all"], self.custom_tasks_splits)
        return [task for task in tasks if task not in {*there, *GONE}]

    @property
    def split_file(self) -> Path:
        """The split that runs read: in place of a published one, that with the tasks of data/gym, once they are built."""
        own = None if self.gym_is_given or self.missing else own_split(self.gym, self.custom_tasks_splits)
        return own if own and own.is_file() else self.custom_tasks_splits

    def reads(self, kind: str) -> bool:
        """Returns whether a variant reads vectors of a kind: text, fisher or gradient."""
        return any(VARIANTS[name].vectors == kind for name in self.variants if name in VARIANTS)

    def problems(self) -> list[str]:
        problems = Problems(super().problems())
        if unknown := [name for name in self.starts if name not in (DIRECT, *self.variants)]:
            problems += [f"--starts: {name} is not one of --variants" for name in unknown]
        if self.reads("gradient") and self.dense_steps >= self.total_steps:
            problems.append(
                f"--dense_steps is {self.dense_steps}; it must be below --total_steps, {self.total_steps}"
            )
        if self.reads("gradient") and self.mixed_precision == "fp16":
            problems.append(
                "--mixed_precision fp16 is too small for the gradients of gradient_routing; give bf16"
            )
        if self.train_dir and self.gym_is_given and not self.train_dir.is_dir():
            problems.append(f"--train_dir {self.train_dir}: no such folder")
        split = problems.of(load_split, self.custom_tasks_splits)
        if split:
            for section in ("test", "train"):
                problems.of(tasks_named, [section], self.custom_tasks_splits)
            if self.train_dir and self.gym_is_given and self.train_dir.is_dir():
                problems.of(tasks_named, ["all"], self.custom_tasks_splits, self.train_dir)
            if self.reads("fisher") and 0 < len(split.train) <= self.dim:
                problems.append(
                    f"--dim is {self.dim}; it must be less than the number of train tasks, {len(split.train)}"
                )
        return list(problems)


PUBLISHED_VALUES = dict(
    total_steps=30000, eval_period=750, learning_rate_list=(1e-5, 2e-5, 5e-5), bsz_list=(2, 4, 8), few_shot_steps=1000,
    few_shot_eval_period=100, warmup_steps=100, dim=64, vector_steps=2500, init_eps=1e-8, jobs=1, num_workers=1,
    vector_flags="--recipe published",
)  # fmt: skip
SMALL = dict(
    total_steps=100, eval_period=100, learning_rate_list=(1e-3,), bsz_list=(8,), few_shot_steps=40,
    few_shot_eval_period=20, warmup_steps=4, dim=4, vector_steps=20, init_eps=1e-2, jobs=2, num_workers=1,
    vector_flags="--max_examples 32",
)  # fmt: skip


def reproduce(study: PaperStudy) -> int:
    build_gym(study)
    runs = PaperRuns(study)
    rates, sizes = " ".join(map(number, study.learning_rate_list)), " ".join(map(str, study.bsz_list))
    seeds = " ".join(map(str, study.seeds))
    compared = f"model {study.model}, variants: {' '.join(study.variants)}; seeds: {seeds}"
    tuning = f"fine-tuning: {study.few_shot_steps}, learning rates {rates}, batch sizes {sizes}"
    steps = f"{study.total_steps} steps; {tuning}"
    print(runs.recipe.announced(compared, steps, study.output_dir), flush=True)
    runs.recipe.set_threads()
    status = report_unfinished(study.runner().run(runs.all()))
    print(f"All runs, including earlier calls: {minutes(study.output_dir):.1f} minutes")
    return write_tables(study) or status


def build_gym(study: PaperStudy) -> None:
    """Builds the tasks of the split that data/gym lacks. Raises InputError if the gym still lacks some."""
    if study.missing:
        call_here(command("routing_moe.cli.build_gym", output_dir=study.gym, tasks=tuple(study.missing)))
    if not study.gym_is_given:
        with problem_context("", f" ({study.gym}/gym_report.csv says why some tasks could not be built)"):
            tasks_named(["all"], study.split_file, study.gym)


def main(argv: list[str] | None = None) -> int:
    return run_study(reproduce, PaperStudy, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
