"""Routes from gradients, without a router: one BART without task names, gradient vectors, clusters, a mixture of them.

    bash example_scripts/run_gradient_routing.sh                              on the embedded conflict gym
    bash example_scripts/run_gradient_routing.sh --train_dir gym --custom_tasks_splits split.json --output_dir models/moe
    routing-moe recipe gradient-routing --train_dir gym --output_dir models/moe

Trains one BART without task names, computes a gradient vector of each task at six of its checkpoints, clusters the
vectors, and trains a mixture with one expert per cluster, whose routes are fixed. Scores train tasks, and unseen tasks
along the route of the cluster nearest to their vectors. Vectors are computed from labelled rows of the first sample of
each task, also of unseen tasks, so that their scores are not zero-shot. Further flags are those of routing-moe train
for the mixture. The same command continues after an interruption; finished stages are kept.
"""

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from dataloader.errors import InputError
from dataloader.task_splits import load_split
from routing_moe.config.flags import AT_LEAST_1, group
from routing_moe.studies.recipes import (
    CLUSTERS,
    CONFLICT,
    SCORES,
    UNSEEN_SCORES,
    TrainingFlags,
    TrainingRecipe,
    command,
    number,
)
from routing_moe.studies.study import RUNNING, run_study
from routing_moe.studies.training import in_turn
from routing_moe.studies.vectors import vectors_command

STAGES = group("stages")
SECTIONS = ("embeddings", "encoder", "decoder", "layers", "all")


@dataclass(frozen=True, kw_only=True)
class GradientFlags(TrainingFlags):
    """How routes are computed from gradients."""

    # fmt: off
    dense_steps: int | None = STAGES(None, "steps of the BART, of which it keeps ten checkpoints; gradients are of those from the middle on (default: 1000; on other data a third of TOTAL_STEPS)", range=AT_LEAST_1)
    weights: str = STAGES("embeddings", "weights whose gradients are taken", choices=SECTIONS)
    vector_flags: str = STAGES("", 'flags of routing-moe vectors gradient. "--parts sides" with --weights layers: encoder and decoder have clusters of their own')
    clusters: str = STAGES("auto", "number of clusters, or auto: by silhouette", range=CLUSTERS)
    upcycle: bool = STAGES(False, "the experts start from the weights of the dense run instead of those of --model")
    each_sample: bool = STAGES(False, "also compute the vectors of each sample of the unseen tasks, in OUTPUT_DIR/vectors_each, for few-shot fine-tuning")
    zero_shot_flags: str = STAGES("", 'flags for the scores of unseen tasks, such as "--scoring rank"')
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class GradientRouting(GradientFlags):
    # fmt: off
    program = "routing-moe recipe gradient-routing"

    output_dir: Path = RUNNING(Path("models/gradient_routing"), "run folder of the mixture, with the final scores; it has dense/ and vectors/")
    dense_flags: str = STAGES("", 'flags of routing-moe train for the BART, such as "--seed 43"')
    # fmt: on


def gradient_routing(flags: GradientRouting) -> int:
    if not (flags.model or flags.has_own_data):
        flags = replace(flags, embedded_gym=CONFLICT)
    recipe = TrainingRecipe.chosen(flags).with_(taskvecs=None)  # those that are computed here are used
    steps = flags.dense_steps or (1000 if recipe.embedded == CONFLICT else -(-recipe.total_steps // 3))
    stages = Stages(recipe, flags, steps)
    todo = stages.commands()
    if todo:
        counts = f"{steps} steps of one BART, then {recipe.total_steps} of a mixture"
        counts += f", learning rate {number(recipe.learning_rate)}, clusters: {flags.clusters}"
        print(recipe.announced(f"model {recipe.model}", counts, flags.output_dir, flags.further), flush=True)
    code = in_turn(recipe, todo)
    stages.warn_of_dense_run()
    code = code or in_turn(recipe, stages.scoring())
    if not code:
        files = [flags.output_dir / name for name in (SCORES, UNSEEN_SCORES)]
        scores = [str(file) for file in files if file.is_file()]
        print(f"{flags.output_dir} is finished: scores in {' and '.join(scores)}")
    return code


@dataclass(frozen=True)
class Stages:
    """The commands of the stages. dense_steps: of the BART whose gradients are taken."""

    recipe: TrainingRecipe
    flags: GradientRouting
    dense_steps: int

    @property
    def folder(self) -> Path:
        return self.flags.output_dir

    def commands(self) -> list[list[str]]:
        """Returns the commands of the stages that are not finished, without the scores of unseen tasks."""
        commands = []
        if not (self.folder / SCORES).is_file():
            commands += [] if (self.folder / "dense" / SCORES).is_file() else [self.dense()]
            commands.append(self.vectors("vectors"))
            if self.flags.each_sample:
                commands.append(self.vectors("vectors_each", "--tasks", "test", "--samples", "each"))
            commands.append(self.mixture())
        return commands

    def scoring(self) -> list[list[str]]:
        """Returns the command that scores the unseen tasks, if there are any and it is not finished."""
        if (self.folder / UNSEEN_SCORES).is_file() or not self.has_unseen_tasks():
            return []
        return [self.recipe.predict_unseen(self.folder, *shlex.split(self.flags.zero_shot_flags))]

    def dense(self) -> list[str]:
        recipe = self.recipe.with_(total_steps=self.dense_steps, eval_period=self.dense_steps)
        saving = dict(save_period=self.period, checkpoint_period=self.period)
        flags = command(
            num_experts=1,
            hide_task_names=True,
            resume=True,
            **saving,
            further=shlex.split(self.flags.dense_flags),
        )
        return recipe.train(self.folder / "dense", *flags)

    @property
    def period(self) -> int:
        return max(1, self.dense_steps // 10)

    def vectors(self, name: str, *further: str) -> list[str]:
        saved = range(self.period, self.dense_steps + 1, self.period)
        checkpoints = tuple(f"{step}-steps" for step in saved if 2 * step >= self.dense_steps)
        return vectors_command(
            self.recipe,
            "gradient",
            self.folder / name,
            *shlex.split(self.flags.vector_flags),
            *further,
            **dict(
                model=self.folder / "dense",
                hide_task_names=True,
                checkpoint_names=checkpoints,
                weights=self.flags.weights,
            ),
        )

    def mixture(self) -> list[str]:
        recipe = self.recipe.with_(taskvecs=self.folder / "vectors")
        start = self.folder / "dense" if self.flags.upcycle else None
        flags = command(task_routes=f"clusters:{self.flags.clusters}", resume=True, vanilla_checkpoint=start)
        return recipe.train(self.folder, *flags, *self.flags.further)

    def has_unseen_tasks(self) -> bool:
        try:
            return bool(load_split(self.recipe.split_file).test)
        except InputError:  # reported by the training
            return False

    def warn_of_dense_run(self) -> None:
        """Until the BART has begun to learn, clusters of its gradients say nothing about the tasks."""
        file = self.folder / "dense/best/eval-dev-performance.csv"
        if not file.is_file():
            return
        import pandas as pd  # takes a third of a second

        score, constant = pd.read_csv(file)[["performance", "constant"]].mean()
        if score < 1.5 * constant:
            print(
                f"note: the dense run has barely learned anything: its mean dev score is {score:g}, that of constant "
                f"answers {constant:g}; its clusters may mean nothing, raise --dense_steps",
                file=sys.stderr,
            )


def main(argv: list[str] | None = None) -> int:
    return run_study(gradient_routing, GradientRouting, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
