"""The whole method: stage 1 learns routes, a merge resets the experts to plain BART, stage 2 trains them with these routes.

    bash example_scripts/run_two_stage.sh                                          on the embedded gym
    bash example_scripts/run_two_stage.sh --train_dir path/to/gym --output_dir models/moe
    routing-moe recipe two-stages [PART] --train_dir gym --output_dir models/moe

PART is one of
    both      all, also without PART
    merge     only the step between the stages (build_a_checkpoint2.sh): writes a checkpoint OUTPUT_DIR/init with the
              router and the task vectors of stage 1, and with experts that are copies of plain BART. Further flags are
              those of routing-moe merge
    stage2    only stage 2 (run_merged_fisher128freeze_1e-5.sh): trains the experts of OUTPUT_DIR/init with frozen router
              and task vectors, while routes are annealed from the average of the experts (temperature 300) to the
              routes learned in stage 1 (temperature 1)
    fisher    all, with Fisher vectors (run_fisher_two_stage.sh): computes them, reduces them to principal components
              fitted on the train tasks, and keeps them frozen in stage 1. They are computed from labelled rows, also those
              of unseen tasks (meta.json: "seen"), so that scores of unseen tasks are not zero-shot
Further flags are those of routing-moe train for stage 2, except those that the checkpoint defines (--model,
--num_experts, --taskvecs, ...). With the embedded gym, a missing stage is trained first. The same command continues
after an interruption; finished stages are kept.
"""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from dataloader.errors import InputError
from routing_moe.config.flags import AT_LEAST_1, NOT_NEGATIVE, group
from routing_moe.config.merge import MergeSettings
from routing_moe.studies.recipes import (
    SCORES,
    TrainingFlags,
    TrainingRecipe,
    command,
    kind_of,
    number,
    saved_config,
)
from routing_moe.studies.study import RUNNING, part_of, run_study
from routing_moe.studies.training import in_turn
from routing_moe.studies.vectors import reduce_command, vectors_command

STAGES = group("stages")
INIT = "init"  # the checkpoint that stage 2 starts from


@dataclass(frozen=True, kw_only=True)
class StageFlags(TrainingFlags):
    """The hyperparameters of the merge and of stage 2."""

    # fmt: off
    init_eps: float = STAGES(1e-8, "standard deviation of the noise that is added to each copy of plain BART", range=NOT_NEGATIVE)
    stage2_steps: int | None = STAGES(None, "optimizer steps of stage 2 (default: 2 * TOTAL_STEPS, 60000 as published; of an embedded BART TOTAL_STEPS)", range=AT_LEAST_1)
    stage2_learning_rate: float | None = STAGES(None, "its peak learning rate (default: LEARNING_RATE)", range=NOT_NEGATIVE)
    stage2_eval_period: int | None = STAGES(None, "steps between its evaluations (default: 1/20 of the steps; of an embedded BART EVAL_PERIOD)", range=AT_LEAST_1)
    stage2_no_eval_until: int | None = STAGES(None, "no evaluation before this step (default: a quarter of the steps)", range=NOT_NEGATIVE)
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class TwoStages(StageFlags):
    # fmt: off
    program = "routing-moe recipe two-stages"
    usage = "[PART] [flags]"

    output_dir: Path = RUNNING(Path("models/two_stage"), "run folder of stage 2, with the final scores")
    stage1: Path | None = STAGES(None, "run whose routes are kept, of this project or of the published code (default: stage 1 is trained in OUTPUT_DIR/stage1)")
    stage1_checkpoint: str | None = STAGES(None, "its checkpoint (default: best)")
    stage1_flags: str = STAGES("", 'flags of routing-moe train for stage 1, such as "--num_experts 4"')
    # fmt: on

    @property
    def stage1_run(self) -> Path:
        return self.stage1 or self.output_dir / "stage1"


@dataclass(frozen=True, kw_only=True)
class Merging(TwoStages):
    further_flags_of = MergeSettings


@dataclass(frozen=True, kw_only=True)
class FisherTwoStages(TwoStages):
    # fmt: off
    variables: ClassVar[Mapping[str, str]] = TwoStages.variables | {"fisher_vectors": "VECTORS"}

    output_dir: Path = RUNNING(Path("models/fisher_two_stage"), "run folder of stage 2, with the final scores")
    fisher_vectors: Path | None = STAGES(None, "folder of the Fisher vectors; the reduced ones are in a folder of this name followed by DIM (default: OUTPUT_DIR/fisher)")
    dim: int | None = STAGES(None, "dimension of the reduced vectors (default: 64; of the embedded gym 16)", range=AT_LEAST_1)
    # fmt: on


# ---- commands


def stage2_of(recipe: TrainingRecipe, flags: TwoStages) -> TrainingRecipe:
    """Returns the recipe with steps and rate of stage 2."""
    steps = flags.stage2_steps or (recipe.total_steps if recipe.embedded else 2 * recipe.total_steps)
    period = recipe.eval_period if recipe.embedded else max(1, steps // 20)
    given = flags.stage2_learning_rate
    rate = recipe.rate(expert_kind(flags)) if given is None else given
    return replace(
        recipe, total_steps=steps, eval_period=flags.stage2_eval_period or period, learning_rate=rate
    )


def expert_kind(flags: TwoStages) -> str | None:
    """Returns the kind of the experts of both stages: of what is saved, else of the flags of stage 1."""
    saved = saved_config(flags.output_dir / INIT) or saved_config(flags.stage1_run)
    return saved.get("expert_kind") if saved else kind_of(shlex.split(flags.stage1_flags))


def merge_command(recipe: TrainingRecipe, flags: TwoStages, *further: str) -> list[str]:
    return command(
        "routing_moe.cli.merge",
        **dict(
            routes_from=flags.stage1_run, routes_checkpoint_name=flags.stage1_checkpoint, model=recipe.model
        ),
        **dict(init_eps=flags.init_eps, output_dir=flags.output_dir, keep_existing=True),
        further=further,
    )


def stage2_command(recipe: TrainingRecipe, flags: TwoStages, *further: str) -> list[str]:
    """recipe: of stage 2."""
    steps, first = recipe.total_steps, flags.stage2_no_eval_until
    # 300 * exp(-6) < 1: the temperature reaches its minimum after 95% of the steps, for any number of steps.
    annealing = dict(initial_tau=300, minimum_tau=1, anneal_rate=f"{6 / steps:g}")
    frozen = dict(router_mode="softmax", router_lr=0, task_model_lr=0)
    no_eval_until = steps // 4 if first is None else first
    start = dict(checkpoint_name=INIT, no_eval_until=no_eval_until, resume=True)
    stage = command(**frozen, **annealing, **start, further=further)
    return recipe.train(flags.output_dir, *stage, from_checkpoint=True)


# ---- one command


def first_stage(recipe: TrainingRecipe, flags: TwoStages) -> list[list[str]]:
    """Returns the command of stage 1, unless it is finished. A given run is never trained: it may be published."""
    if flags.stage1 or (flags.stage1_run / SCORES).is_file():
        return []
    return [recipe.train(flags.stage1_run, "--resume", *shlex.split(flags.stage1_flags))]


def two_stages(flags: TwoStages, before: tuple[list[str], ...] = ()) -> int:
    recipe = TrainingRecipe.chosen(flags, flags.stage1)
    return ending_with_stage2(
        recipe, flags, [*before, *first_stage(recipe, flags), merge_command(recipe, flags)]
    )


def ending_with_stage2(recipe: TrainingRecipe, flags: TwoStages, before: list[list[str]]) -> int:
    """Calls the commands of earlier stages, then stage 2, unless this is finished."""
    check(flags.further)
    if (flags.output_dir / SCORES).is_file():
        print(f"{flags.output_dir} is finished: scores in {flags.output_dir / SCORES}")
        return 0
    print(described(recipe, flags), flush=True)
    return in_turn(recipe, [*before, stage2_command(stage2_of(recipe, flags), flags, *flags.further)])


def merge(flags: Merging) -> int:
    recipe = TrainingRecipe.chosen(flags, flags.stage1)
    print(
        f"routes of {flags.stage1_run}, experts from {recipe.model}; output in {flags.output_dir / INIT}",
        flush=True,
    )
    first = first_stage(recipe, flags) if recipe.embedded else []
    return in_turn(recipe, [*first, merge_command(recipe, flags, *flags.further)])


def stage2(flags: TwoStages) -> int:
    has_start = any((flags.output_dir / file).is_file() for file in (f"{INIT}/config.json", SCORES))
    recipe = TrainingRecipe.chosen(flags, flags.output_dir / INIT if has_start else None)
    before = []
    if not has_start:
        if not recipe.embedded:
            raise InputError(
                f"{flags.output_dir / INIT}: no such checkpoint; write it with build_a_checkpoint2.sh"
            )
        before = [*first_stage(recipe, flags), merge_command(recipe, flags)]
    return ending_with_stage2(recipe, flags, before)


def fisher(flags: FisherTwoStages) -> int:
    folder = flags.fisher_vectors or flags.output_dir / "fisher"
    recipe = TrainingRecipe.chosen(replace(flags, taskvecs=None))
    dim = flags.dim or (64 if flags.train_dir else 16)
    reduced = Path(f"{folder}{dim}")
    vectors = (
        vectors_command(recipe, "fisher", folder),
        reduce_command(folder, recipe.split_file, dim, reduced),
    )
    print(f"its Fisher vectors in {dim} dimensions: {reduced}", flush=True)
    stage1_flags = f"--freeze_task_model {flags.stage1_flags}"
    return two_stages(
        replace(flags, taskvecs=reduced, model=recipe.model, stage1_flags=stage1_flags), vectors
    )


def check(further: tuple[str, ...]) -> None:
    for flag in further:
        if flag.partition("=")[0] == "--anneal_rate":
            raise InputError(
                f"{flag}: the annealing is computed from the number of steps; give --stage2_steps instead"
            )


def described(recipe: TrainingRecipe, flags: TwoStages) -> str:
    def steps(stage: TrainingRecipe) -> str:
        return f"{stage.total_steps} steps, learning rate {number(stage.rate(expert_kind(flags)))}"

    first = f"routes of {flags.stage1}" if flags.stage1 else f"stage 1: {steps(recipe)}"
    both = f"{first}; stage 2: {steps(stage2_of(recipe, flags))}"
    return recipe.announced(recipe.described, both, flags.output_dir, flags.further)


PARTS = {
    "both": (two_stages, TwoStages),
    "merge": (merge, Merging),
    "stage2": (stage2, TwoStages),
    "fisher": (fisher, FisherTwoStages),
}


def main(argv: list[str] | None = None) -> int:
    (run, flags), line = part_of(argv, "PART", PARTS, default="both")
    return run_study(run, flags, line, __doc__)


if __name__ == "__main__":
    sys.exit(main())
