"""Routes found by loss: one BART without task names, clusters of its gradients, a mixture that refines them.

    bash example_scripts/run_refined_routing.sh                      on the embedded conflict gym
    bash example_scripts/run_refined_routing.sh --train_dir gym --output_dir models/moe
    routing-moe recipe refined-routing --train_dir gym --output_dir models/moe

Trains one BART without task names, computes a gradient vector of each task at six of its checkpoints, and
clusters the vectors. A mixture with one expert per cluster, each with the weights of this BART, is trained
without task names. In its first steps, tasks move to the expert with the lowest loss on rows that are held
out until then. Scores train tasks, and unseen tasks along the route with the lowest loss on the rows of their
first sample. The vectors are computed from labelled rows, also of unseen tasks, so that their scores are not
zero-shot. With --refine_steps 0, the clusters stay. Further flags are those of routing-moe train for the
mixture. The same command continues after an interruption; finished stages are kept.
"""

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from dataloader.errors import InputError
from dataloader.task_splits import load_split
from routing_moe.config.choices import LOWEST_LOSS
from routing_moe.config.flags import AT_LEAST_1, NOT_NEGATIVE, group, parse
from routing_moe.config.train import TrainSettings
from routing_moe.studies.recipes import (
    CLUSTERS,
    CONFLICT,
    SCORES,
    UNSEEN_SCORES,
    TrainingFlags,
    TrainingRecipe,
    command,
    kind_of,
    number,
)
from routing_moe.studies.study import RUNNING, run_study
from routing_moe.studies.training import in_turn
from routing_moe.studies.vectors import vectors_command
from routing_moe.training.checks import contradictions, number_problems

STAGES = group("stages")
NEAREST_CLUSTER = "nearest_cluster"
SECTIONS = ("embeddings", "encoder", "decoder", "layers", "all")


@dataclass(frozen=True, kw_only=True)
class GradientFlags(TrainingFlags):
    """How clusters of gradients are computed."""

    # fmt: off
    dense_steps: int | None = STAGES(None, "steps of the BART, of which it keeps ten checkpoints; gradients are of those from the middle on (default: 1000; on other data a third of TOTAL_STEPS)", range=AT_LEAST_1)
    weights: str = STAGES("embeddings", "weights whose gradients are taken", choices=SECTIONS)
    vector_flags: str = STAGES("", 'flags of routing-moe vectors gradient. "--parts sides" with --weights layers: encoder and decoder have clusters of their own')
    clusters: str = STAGES("auto", "number of clusters, or auto: by silhouette; with :MIN-MAX, such as 8:4-20, also their sizes", range=CLUSTERS)
    each_sample: bool = STAGES(False, "also compute the vectors of each sample of the unseen tasks, in OUTPUT_DIR/vectors_each, for few-shot fine-tuning")
    zero_shot_flags: str = STAGES("", 'flags for the scores of unseen tasks, such as "--scoring rank"')
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class RefinedRouting(GradientFlags):
    # fmt: off
    program = "routing-moe recipe refined-routing"

    output_dir: Path = RUNNING(Path("models/refined_routing"), "run folder of the mixture, with the final scores; it has dense/ and vectors/")
    dense_flags: str = STAGES("", 'flags of routing-moe train for the BART, such as "--seed 43"')
    start_routes: str | None = STAGES(None, "routes to refine instead of clusters, a value of --task_routes such as ontology, a file or random:FILE; no vectors are computed", metavar="SPEC")
    mixture_rate: float | None = STAGES(None, "learning rate of the mixture (default: LEARNING_RATE; on a conflict gym twice as much, as an expert has few of the rows of a step)", range=NOT_NEGATIVE)
    from_model: bool = STAGES(False, "the experts start from the weights of --model instead of those of the BART")
    refine_steps: int | None = STAGES(None, "step of the mixture after which tasks no longer move; they move from a third of these steps on, every sixth, and experts are split in between (further flags, such as --reassign_every, change this); 0: never (default: half of TOTAL_STEPS)", range=NOT_NEGATIVE)
    unseen: str = STAGES(LOWEST_LOSS, "the route of an unseen task: that of lowest loss on the rows of its first sample, or of the nearest cluster by its gradients", choices=(LOWEST_LOSS, NEAREST_CLUSTER))
    # fmt: on

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.start_routes and self.unseen == NEAREST_CLUSTER:
            problems.append("--unseen nearest_cluster needs vectors, which --start_routes leaves out")
        return problems


def refined_routing(flags: RefinedRouting) -> int:
    if not (flags.model or flags.has_own_data):
        flags = replace(flags, embedded_gym=CONFLICT)
    recipe = TrainingRecipe.chosen(flags).with_(taskvecs=None)  # those that are computed here are used
    steps = flags.dense_steps or (1000 if recipe.embedded == CONFLICT else -(-recipe.total_steps // 3))
    stages = Stages(recipe, flags, steps)
    todo = stages.commands()
    if todo:
        check_mixture(todo[-1])
        counts = (
            f"{steps} steps of one BART, learning rate {number(recipe.rate())}, then {recipe.total_steps} "
        )
        counts += f"of a mixture, {number(stages.mixture_rate)}, first routes: {stages.first_routes}"
        counts += f"; tasks move until step {stages.refine_steps}" if stages.refine_steps else ", which stay"
        print(recipe.announced(f"model {recipe.model}", counts, flags.output_dir, flags.further), flush=True)
    code = in_turn(recipe, todo[:-1])
    stages.warn_of_dense_run()
    code = code or in_turn(recipe, todo[-1:]) or in_turn(recipe, stages.scoring())
    if not code:
        files = [flags.output_dir / name for name in (SCORES, UNSEEN_SCORES)]
        scores = [str(file) for file in files if file.is_file()]
        print(f"{flags.output_dir} is finished: scores in {' and '.join(scores)}")
    return code


def check_mixture(command: list[str]) -> None:
    """Raises InputError for wrong numbers in the training of the mixture, which is the last stage."""
    _, *flags = command
    settings = TrainSettings(**parse(TrainSettings, flags))
    if problems := [*number_problems(settings), *contradictions(settings)]:
        raise InputError(problems)


@dataclass(frozen=True)
class Stages:
    """The commands of the stages. dense_steps: of the BART whose weights and gradients are used."""

    recipe: TrainingRecipe
    flags: RefinedRouting
    dense_steps: int

    @property
    def folder(self) -> Path:
        return self.flags.output_dir

    @property
    def first_routes(self) -> str:
        return self.flags.start_routes or f"clusters:{self.flags.clusters}"

    @property
    def mixture_rate(self) -> float:
        if self.flags.mixture_rate is not None:
            return self.flags.mixture_rate
        rate = self.recipe.rate(kind_of(self.flags.further))
        return 2 * rate if self.recipe.embedded == CONFLICT and not self.flags.from_model else rate

    @property
    def refine_steps(self) -> int:
        steps = self.flags.refine_steps
        return self.recipe.total_steps // 2 if steps is None else steps

    def commands(self) -> list[list[str]]:
        """Returns the commands of the stages that are not finished, without the scores of unseen tasks."""
        if (self.folder / SCORES).is_file():
            return []
        flags, commands = self.flags, []
        reads_dense = not (flags.start_routes and flags.from_model) or flags.each_sample
        if reads_dense and not (self.folder / "dense" / SCORES).is_file():
            commands.append(self.dense())
        if not flags.start_routes:
            commands.append(self.vectors("vectors"))
        if flags.each_sample:
            commands.append(self.vectors("vectors_each", "--tasks", "test", "--samples", "each"))
        return [*commands, self.mixture()]

    def scoring(self) -> list[list[str]]:
        """Returns the command that scores the unseen tasks, if there are any and it is not finished."""
        if (self.folder / UNSEEN_SCORES).is_file() or not self.has_unseen_tasks():
            return []
        by_loss = ["--task_routes", LOWEST_LOSS] if self.flags.unseen == LOWEST_LOSS else []
        return [self.recipe.predict_unseen(self.folder, *by_loss, *shlex.split(self.flags.zero_shot_flags))]

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
        steps, start = self.refine_steps, self.flags.start_routes
        vectors = None if start else self.folder / "vectors"
        recipe = self.recipe.with_(taskvecs=vectors, learning_rate=self.mixture_rate)
        moving = {}
        if steps:
            every, first = max(1, steps // 6), max(1, steps // 3)
            moving = dict(reassign_every=every, reassign_from=first, reassign_until=steps, reassign_splits=2)
        flags = command(
            task_routes=self.first_routes,
            vanilla_checkpoint=None if self.flags.from_model else self.folder / "dense",
            hide_task_names=bool(steps),  # known by its name, a task fits no expert but its own
            resume=True,
            **moving,
        )
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
    return run_study(refined_routing, RefinedRouting, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
