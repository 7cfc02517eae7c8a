"""Train one model with the hyperparameters that go with it, then score it.

    bash example_scripts/train_routing_bart.sh                        a mixture, on the embedded gym
    bash example_scripts/train_routing_bart.sh --train_dir path/to/gym --output_dir models/moe
    routing-moe recipe train --train_dir gym --output_dir models/average --avg_routing

Further flags are those of routing-moe train. With --avg_routing, --random_routing, --task_level_random_routing or
--num_experts 1, a baseline is trained with the same hyperparameters; with --task_routes, routes are given instead of
learned (those of clusters:K by the vectors of --taskvecs).
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from routing_moe.studies.recipes import TrainingFlags, TrainingRecipe, kind_of, number
from routing_moe.studies.runs import call_all, run_in_turn
from routing_moe.studies.study import RUNNING, run_study
from routing_moe.studies.variants import VARIANTS

NAMES = tuple(name for name, variant in VARIANTS.items() if not variant.module and not variant.vectors)


@dataclass(frozen=True, kw_only=True)
class Training(TrainingFlags):
    # fmt: off
    program = "routing-moe recipe train"

    output_dir: Path = RUNNING(Path("models/routing_bart"), "run folder")
    variant: str | None = RUNNING(None, "variant of the comparison of routings that is trained; further flags win over its own", choices=NAMES)
    # fmt: on


def train(flags: Training) -> int:
    recipe = TrainingRecipe.chosen(flags)
    own = VARIANTS[flags.variant].flags.split() if flags.variant else ()
    command = recipe.train(flags.output_dir, *own, *flags.further)
    rates = f"learning rate {number(recipe.rate(kind_of([*own, *flags.further])))}"
    if "--router_lr" in command:
        rates += f", router {number(recipe.router_lr)}, task vectors {number(recipe.task_model_lr)}"
    steps = f"{recipe.total_steps} steps, evaluation every {recipe.eval_period}, {rates}"
    print(recipe.announced(recipe.described, steps, flags.output_dir, flags.further), flush=True)
    return in_turn(recipe, [command])


def in_turn(recipe: TrainingRecipe, commands: list[list[str]]) -> int:
    """Makes the embedded gym, if it is used, then calls the commands until one fails; returns the exit code."""
    recipe.set_threads()
    code = run_in_turn(recipe.embedded_run())
    return code or call_all(*commands)


def main(argv: list[str] | None = None) -> int:
    return run_study(train, Training, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
