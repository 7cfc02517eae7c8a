"""First steps: write the conflict gym, train four models on it, two at a time, and print a table.

    bash example_scripts/quickstart.sh                  also creates .venv
    routing-moe study quickstart

    refined_routing   a mixture whose routes are found by loss, as by run_refined_routing.sh
    straight_through  a mixture whose routes are learned by a router, as in the paper
    dense             one BART of the mixtures' active size
    oracle            a mixture with the true routes

All have the same number of steps: that of the dense run, which refined_routing starts from, and of its mixture. The
same command continues after an interruption.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from routing_moe.config.choices import PRECISIONS
from routing_moe.config.flags import AT_LEAST_1, NOT_NEGATIVE, group
from routing_moe.studies.recipes import (
    CONFLICT,
    LEARNING_RATES,
    UNSEEN_SCORES,
    TrainingFlags,
    TrainingRecipe,
    number,
)
from routing_moe.studies.refined_routing import RefinedRouting, Stages
from routing_moe.studies.runs import Run, call_here, report_unfinished
from routing_moe.studies.study import RUNNING, Study, run_study

TRAINING = group("training")
REFINED, LEARNED, DENSE, ORACLE = "refined_routing", "straight_through", "dense", "oracle"
PARTS = 4  # of the skills of the embedded gym, on each side
NEXT_STEPS = """\
Routes that were found (rows: tasks in the order of their true skills, columns: experts of each layer):
    {steps}/route.png
Losses and dev scores during training: {run}/losses.csv, {run}/curves.csv
Predictions, one file per task: {run}/best/predictions/

Next steps:
    source .venv/bin/activate                                  once in each shell
    routing-moe train --help                     all flags
    bash example_scripts/understand.sh {run}
                                                               analyse the experts (a few minutes)
    bash example_scripts/train_routing_bart.sh                 learn routes, on tasks in words (4 minutes)
    bash example_scripts/finetune_a_list_of_tasks_moe.sh       fine-tune that mixture on 8 unseen tasks (10 minutes)
    DATA_DIR=your_gym OUTPUT_DIR=models/moe \\
        bash example_scripts/run_refined_routing.sh            find routes of your own tasks with bart-base, on a GPU"""


@dataclass(frozen=True, kw_only=True)
class Quickstart(Study):
    # fmt: off
    program = "routing-moe study quickstart"

    dense_steps: int = TRAINING(1000, "steps of the BART that the mixture starts from", range=AT_LEAST_1)
    total_steps: int = TRAINING(600, "steps of the mixture; the other models have the steps of both", range=AT_LEAST_1)
    eval_period: int = TRAINING(200, "steps between evaluations", range=AT_LEAST_1)
    learning_rate: float = TRAINING(LEARNING_RATES["layer"][CONFLICT], "learning rate; that of the mixture of refined_routing is twice as high", range=NOT_NEGATIVE)
    mixed_precision: str | None = TRAINING(None, "precision of matrix products (default: bf16 on a GPU that supports it, else no)", choices=PRECISIONS)
    output_dir: Path = RUNNING(Path("models/quickstart"), "folder of the runs", on_resume=True)
    jobs: int = RUNNING(2, "runs at the same time", range=AT_LEAST_1, on_resume=True)
    # fmt: on

    @property
    def recipe(self) -> TrainingRecipe:
        """The recipe of the mixture."""
        names = ("total_steps", "eval_period", "learning_rate", "mixed_precision")
        values = {name: getattr(self, name) for name in names}
        return TrainingRecipe.chosen(TrainingFlags(embedded_gym=CONFLICT, **values))

    def folder(self, name: str) -> Path:
        return self.output_dir / name / "seed42"

    def runs(self) -> list[Run]:
        recipe = self.recipe
        flags = RefinedRouting(output_dir=self.folder(REFINED), embedded_gym=CONFLICT)
        stages = Stages(recipe, flags, self.dense_steps)
        commands = {
            REFINED: lambda: [*stages.commands(), *stages.scoring()],
            LEARNED: lambda: self.baseline(LEARNED, "--num_experts", str(PARTS), "--init_eps", "1e-2"),
            DENSE: lambda: self.baseline(DENSE, "--num_experts", "1"),
            ORACLE: lambda: self.baseline(ORACLE, "--task_routes", f"{recipe.gym}/oracle_routes.json"),
        }
        return [
            Run(name, self.folder(name), call, recipe.embedded_run(), UNSEEN_SCORES, log=self.output_dir / f"{name}.log")
            for name, call in commands.items()
        ]  # fmt: skip

    def baseline(self, name: str, *flags: str) -> list[list[str]]:
        """Returns the commands that train a model for as many steps as refined routing, and score unseen tasks."""
        recipe, folder = self.recipe.with_(total_steps=self.dense_steps + self.total_steps), self.folder(name)
        return [recipe.train(folder, *flags, "--resume"), recipe.predict_unseen(folder)]


def train(study: Quickstart) -> int:
    recipe, steps = study.recipe, study.dense_steps + study.total_steps
    settings = (
        f"{steps} steps of each of 4 models, {study.jobs} at a time, evaluation every {study.eval_period}"
    )
    settings += f", learning rate {number(study.learning_rate)}"
    print(recipe.announced(f"model {recipe.model}", settings, study.output_dir), flush=True)
    recipe.set_threads()
    runs = study.runs()
    exit_code = report_unfinished(study.runner().run(runs))
    names = [run.name for run in runs]
    print(flush=True)
    overview = ["routing_moe.cli.overview", str(study.output_dir), "--recovery", "skill", "--order", *names]
    exit_code = call_here(overview) or exit_code
    run = study.folder(REFINED)
    last = max(run.glob("*-steps"), key=lambda path: int(path.name.split("-")[0]), default=run)
    print(NEXT_STEPS.format(run=run, steps=last))
    return exit_code


def main(argv: list[str] | None = None) -> int:
    return run_study(train, Quickstart, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
