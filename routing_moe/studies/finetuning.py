"""Fine-tune on each of a list of tasks separately, from the same start, and collect the results.

    bash example_scripts/finetune_a_list_of_tasks_moe.sh TASKS CHECKPOINT IDENTIFIER [FLAGS]
    bash example_scripts/finetune_a_list_of_tasks_moe.sh "ag_news glue-cola" models/two_stage moe
    routing-moe recipe finetune START TASKS CHECKPOINT IDENTIFIER [FLAGS]

START       moe: a mixture with the routes of its router; moe_avg, moe_random, moe_random2: with average routes, random
            ones for each example, random ones for each task; bart: a plain BART (finetune_a_list_of_tasks.sh)
TASKS       names of tasks in one argument, or sections of a split: "ag_news glue-cola", test, "my_split.json:test"
CHECKPOINT  initial checkpoint; None: --model without further training
IDENTIFIER  results are written to models/IDENTIFIER/singletask-<task>/, the table of all to models/IDENTIFIER/summary.csv

Without arguments: the 8 unseen tasks of the embedded gym, from the embedded tiny BART or from a mixture trained on the
embedded gym, which is trained first if necessary. Further flags are those of routing-moe finetune, such as
--route_training merged or logits: other starts along the same routes. The same command continues after an interruption;
finished configurations are kept. The task vector of each sample is computed only from the rows of this sample: by default
it is that of the train task nearest to its unlabelled train inputs (column vector_seen of results.csv).
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dataloader.errors import InputError
from dataloader.list_tasks import tasks_named
from routing_moe.config.finetune import FinetuneSettings, finetune_settings
from routing_moe.config.flags import AT_LEAST_1, NOT_NEGATIVE, group, parse
from routing_moe.finetuning.checks import check_start
from routing_moe.studies.recipes import (
    CONFLICT,
    SCORES,
    SKILL,
    DataFlags,
    TrainingRecipe,
    command,
    given_of,
    is_tiny,
    number,
)
from routing_moe.studies.runs import call_here
from routing_moe.studies.study import RUNNING, leading_words, parse_further, part_of, run_study
from routing_moe.studies.training import in_turn

WHAT = group("tasks and start")
GRID = group("grid; by default that of the model")


@dataclass(frozen=True)
class Start:
    """checkpoint, identifier: defaults. flags: for a mixture. training: flags that train the default checkpoint."""

    checkpoint: str
    identifier: str
    flags: tuple[str, ...] = ()
    training: tuple[str, ...] = ()


STARTS = {
    "bart": Start("None", "direct"),
    "moe": Start("models/routing_bart", "moe", ("--moe_init",)),
    "moe_avg": Start("models/avg_routing", "moe_avg", ("--moe_init", "--moe_avg_route"), ("--avg_routing",)),
    "moe_random": Start(
        "models/random_routing", "moe_random", ("--moe_init", "--moe_random_route"), ("--random_routing",)
    ),
    "moe_random2": Start(
        "models/task_random_routing",
        "moe_random2",
        ("--moe_init", "--moe_random2_route"),
        ("--task_level_random_routing",),
    ),
}
# By embedded gym; "": the published grid.
GRIDS = {
    "": dict(learning_rate_list=(1e-5, 2e-5, 5e-5), bsz_list=(2, 4, 8), total_steps=1000, eval_period=100, warmup_steps=100, max_grad_norm=0.1),
    SKILL: dict(learning_rate_list=(3e-4, 1e-3), bsz_list=(4, 8), total_steps=100, eval_period=25, warmup_steps=10, max_grad_norm=0.1),
    CONFLICT: dict(learning_rate_list=(1e-3, 3e-3), bsz_list=(16,), total_steps=60, eval_period=15, warmup_steps=10, max_grad_norm=16),
}  # fmt: skip
RATES_OF_LOGITS = (0.03, 0.1, 0.3)  # with --route_training logits; others are for weights


@dataclass(frozen=True, kw_only=True)
class Finetuning(DataFlags):
    # fmt: off
    program = "routing-moe recipe finetune"
    usage = "START [TASKS [CHECKPOINT [IDENTIFIER]]] [flags]"
    takes_further, further_flags_of = True, FinetuneSettings

    tasks: str = WHAT("test", "as TASKS")
    checkpoint: str | None = WHAT(None, "as CHECKPOINT")
    identifier: str | None = WHAT(None, "as IDENTIFIER")
    results_dir: Path | None = WHAT(None, "folder of the results (default: models/IDENTIFIER)")
    learning_rate_list: tuple[float, ...] | None = GRID(None, "peak learning rates (1e-5 2e-5 5e-5; skill 3e-4 1e-3, conflict 1e-3 3e-3)", range=NOT_NEGATIVE)
    bsz_list: tuple[int, ...] | None = GRID(None, "batch sizes (2 4 8; 4 8, 16)", range=AT_LEAST_1)
    total_steps: int | None = GRID(None, "optimizer steps of a configuration (1000; 100, 60)", range=AT_LEAST_1)
    eval_period: int | None = GRID(None, "steps between evaluations (100; 25, 15)", range=AT_LEAST_1)
    warmup_steps: int | None = GRID(None, "steps in which the rate rises (100; 10, 10)", range=NOT_NEGATIVE)
    num_workers: int = RUNNING(1, "configurations at the same time", range=AT_LEAST_1)
    # fmt: on


class Finetuner:
    """The fine-tuning of all tasks from one start."""

    def __init__(self, start: Start, flags: Finetuning):
        self.start, self.flags = start, flags
        self.checkpoint = flags.checkpoint or start.checkpoint
        self.folder = flags.results_dir or Path("models") / (flags.identifier or start.identifier)
        self.trains_start = (
            bool(start.flags)
            and self.checkpoint == start.checkpoint
            and not flags.has_own_data
            and (flags.model is None or is_tiny(flags.model))
            and not Path(self.checkpoint, SCORES).is_file()
        )
        has_base = self.checkpoint != "None" and not self.trains_start
        self.recipe = TrainingRecipe.chosen(flags, self.checkpoint if has_base else None)
        self.grid = dict(GRIDS[self.recipe.embedded])
        if parse_further(FinetuneSettings, flags.further).get("route_training") == "logits":
            self.grid["learning_rate_list"] = RATES_OF_LOGITS
        self.grid |= given_of(flags, self.grid)

    def described(self) -> str:
        is_plain = self.checkpoint == "None"
        start = (
            f"model {self.recipe.model}"
            if is_plain
            else f"checkpoint {self.checkpoint}, grid of {self.recipe.model}"
        )
        rates = " ".join(map(number, self.grid["learning_rate_list"]))
        sizes = " ".join(map(str, self.grid["bsz_list"]))
        steps = f"{self.grid['total_steps']} steps, evaluation every {self.grid['eval_period']}"
        grid = f"{steps}, learning rates {rates}, batch sizes {sizes}"
        return self.recipe.announced(
            f"fine-tuning on {self.flags.tasks}, {start}", grid, self.folder, self.flags.further
        )

    def command(self, task: str) -> list[str]:
        """Returns the command that fine-tunes on a task."""
        recipe, is_moe = self.recipe, bool(self.start.flags)
        return command(
            "routing_moe.cli.finetune",
            **dict(task_dir=recipe.gym / task, do_train=True, do_predict=True, model=recipe.model),
            **dict(
                init_dir=self.checkpoint if is_moe else None, checkpoint=None if is_moe else self.checkpoint
            ),
            **dict(taskvecs=recipe.taskvecs, output_dir=self.folder / f"singletask-{task}"),
            **dict(
                weight_decay=0.01,
                gradient_accumulation_steps=1,
                num_train_epochs=1000,
                num_workers=self.flags.num_workers,
            ),
            **dict(num_beams=recipe.num_beams, mixed_precision=recipe.mixed_precision),
            **self.grid,
            **recipe.texts,
            further=(*self.start.flags, *self.flags.further),
        )

    def run(self) -> int:
        """Fine-tunes on every task, also if one fails; returns the exit code of the last that failed, else 0."""
        training = self.recipe.train(self.checkpoint, *self.start.training, "--resume")
        if code := in_turn(self.recipe, [training] if self.trains_start else []):
            return code
        tasks = self.checked_tasks()
        codes = []
        for task in tasks:
            print(f"Task: {task}, checkpoint: {self.checkpoint}, results: {self.folder}", flush=True)
            codes.append(call_here(self.command(task)))
            if codes[-1]:
                print(f"error: fine-tuning on {task} ended with exit code {codes[-1]}", file=sys.stderr)
        if self.folder.is_dir():
            flags = dict(logs_dir=self.folder, tasks=tuple(tasks), output_file=self.folder / "summary.csv")
            codes.append(call_here(command("routing_moe.cli.collect_results", **flags)))
        return next((code for code in reversed(codes) if code), 0)

    def checked_tasks(self) -> list[str]:
        """Returns the tasks. Raises InputError if one is unknown, or none of them could start."""
        tasks = tasks_named(self.flags.tasks.split(), self.recipe.split_file, self.recipe.gym)
        if not tasks:
            raise InputError("--tasks names no task")
        # Once for all tasks: none of them would start, and each would wait for a hub that does not answer.
        check_start(finetune_settings(parse(FinetuneSettings, self.command(tasks[0])[1:])))
        return tasks


def finetune(start: Start, flags: Finetuning) -> int:
    finetuner = Finetuner(start, flags)
    print(finetuner.described(), flush=True)
    return finetuner.run()


def main(argv: list[str] | None = None) -> int:
    start, line = part_of(argv, "START", STARTS)
    arguments, flags = leading_words(line)
    names = ("tasks", "checkpoint", "identifier")
    named = [f"--{flag}={value}" for flag, value in zip(names, arguments, strict=False)]
    line = [*named, *arguments[len(names) :], *flags]
    return run_study(partial(finetune, start), Finetuning, line, __doc__)


if __name__ == "__main__":
    sys.exit(main())
