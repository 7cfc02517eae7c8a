"""Train all types of routing with several seeds, and compare them in a table and a picture.

    bash example_scripts/compare_routings.sh
    bash example_scripts/compare_routings.sh --jobs 4 --seeds 1 2 3 4 5 --variants multitask softmax
    routing-moe study routings --match flops

Writes runs <variant>/seed<seed>/ and the comparison in --output_dir. Without dropout, almost equal experts get almost
equal gradients and do not diverge, so they start with noise (--init_eps); the comparison prints their final distance.
Further flags are those of routing-moe train for all runs. A second call keeps finished runs and continues the others.
"""

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from routing_moe.config.flags import NOT_NEGATIVE, SEED, group
from routing_moe.studies.recipes import SCORES, TrainingRecipe, command, number
from routing_moe.studies.refined_routing import GradientFlags
from routing_moe.studies.runs import Run, call_here, counted_steps, counting_run, minutes, report_unfinished
from routing_moe.studies.study import RUNNING, Study, run_study
from routing_moe.studies.two_stages import StageFlags, TwoStages, merge_command, stage2_command, stage2_of
from routing_moe.studies.variants import REFINED_ROUTING, TWO_STAGES, UNREFINED, VARIANTS

COMPARED = group("what is compared")
NAMES = (
    "multitask", "multitask_no_names", "average", "random", "task_random", "softmax", "gumbel", "straight_through", "top_k",
    "merged_parameters", "lora", "poly", "mhr", "gradient_routing", "two_stage",
)  # fmt: skip
STAGE1 = "straight_through"  # the variant whose runs are the first stages of two_stage
SET_BY_VARIANTS = (
    "--avg_routing", "--random_routing", "--task_level_random_routing", "--router_mode", "--router_top_k", "--expert_mixing",
    "--expert_kind", "--lora_mixing", "--lora_splits", "--router_nn_type", "--num_experts", "--init_eps",
    "--hide_task_names", "--seed", "--prefix", "--predict_split",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RoutingsStudy(StageFlags, GradientFlags, Study):
    # fmt: off
    program = "routing-moe study routings"

    output_dir: Path | None = RUNNING(None, "folder of the study (default: models/compare_routings, with --match flops models/compare_routings_equal_flops)", on_resume=True)
    variants: tuple[str, ...] | None = COMPARED(None, "variants to train; gradient_routing only with --match steps (default: all)", choices=NAMES, on_resume=True)
    seeds: tuple[int, ...] = COMPARED((42, 43, 44), "seeds of each variant", range=SEED, on_resume=True)
    baseline: str | None = COMPARED(None, "variant that differences are relative to (default: multitask, if it is in --output_dir)", choices=NAMES, on_resume=True)
    mixture_flags: str = COMPARED("", 'flags of all variants with several experts, such as "--num_experts 4"; not of gradient_routing, whose clusters give the number of experts')
    init_eps: float = COMPARED(1e-2, "standard deviation of the noise on each expert's weights", range=NOT_NEGATIVE)
    match: str = COMPARED("steps", "steps: --total_steps for all runs (two_stage: in each stage; gradient_routing: after the steps of its dense run, see run_refined_routing.sh). flops: each run has the number of steps with the training FLOPs of the run of --match_to with the same seed", choices=("steps", "flops"))
    match_to: str = COMPARED(STAGE1, "variant whose FLOPs --match flops matches", choices=tuple(name for name in NAMES if not VARIANTS[name].module))
    # fmt: on

    def resolved(self) -> "RoutingsStudy":
        is_flops = self.match == "flops"
        names = tuple(name for name in NAMES if not (is_flops and VARIANTS[name].module == REFINED_ROUTING))
        folder = Path("models/compare_routings_equal_flops" if is_flops else "models/compare_routings")
        return replace(self, variants=self.variants or names, output_dir=self.output_dir or folder)

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.match == "flops" and "gradient_routing" in self.variants:
            problems.append(
                "--variants: gradient_routing cannot be trained to given FLOPs; leave it out, or give --match steps"
            )
        for word in self.further:
            if word.partition("=")[0] in SET_BY_VARIANTS:
                problems.append(
                    f"{word}: cannot be given for all runs; each variant sets it (see --variants, --seeds, --mixture_flags, --init_eps)"
                )
        return problems


@dataclass(frozen=True)
class Runs:
    """The runs of the study. recipe: of all variants."""

    study: RoutingsStudy
    recipe: TrainingRecipe

    @cached_property
    def gym(self) -> tuple[Run, ...]:
        return self.recipe.embedded_run()

    def folder(self, name: str, seed: int) -> Path:
        return self.study.output_dir / name / f"seed{seed}"

    def flags(self, name: str, seed: int) -> list[str]:
        """Returns the flags of a training of one stage."""
        variant, study = VARIANTS[name], self.study
        noise = (
            ["--init_eps", number(study.init_eps), *shlex.split(study.mixture_flags)]
            if variant.experts
            else []
        )
        return [*variant.flags.split(), "--seed", str(seed), *noise, *study.further]

    def run(self, name: str, seed: int) -> Run:
        """Returns the run of a variant and a seed, with the runs that it needs."""
        variant = VARIANTS[name]
        if variant.module == TWO_STAGES:
            return self.two_stages(seed)
        if variant.module == REFINED_ROUTING:
            return self.gradient_routing(seed)
        folder, flags = self.folder(name, seed), self.flags(name, seed)
        if self.study.match == "steps" or name == self.study.match_to:
            training = self.recipe.train(folder, *flags, "--resume")
            return self.scored(folder, lambda: [training], self.gym)
        steps = self.steps(seed, folder, "steps_of", self.recipe.train(folder, *flags))
        return self.scored(
            folder,
            lambda: [self.recipe.with_(total_steps=counted_steps(steps)).train(folder, *flags, "--resume")],
            (steps,),
        )

    def scored(self, folder: Path, commands: Callable[[], list[list[str]]], needs: tuple[Run, ...]) -> Run:
        """Returns a run that ends with scores, named after its folder."""
        return Run(str(folder.relative_to(self.study.output_dir)), folder, commands, needs, SCORES)

    def steps(
        self, seed: int, folder: Path, name: str, command: list[str], needs: tuple[Run, ...] = ()
    ) -> Run:
        """Returns the run that computes the number of steps with the FLOPs of a run of --match_to."""
        reference, file = self.run(self.study.match_to, seed), f"{name}_{self.study.match_to}"
        return counting_run(self.study.output_dir, folder, file, lambda: command, (*needs, reference))

    def gradient_routing(self, seed: int) -> Run:
        folder, study = self.folder("gradient_routing", seed), self.study
        routing = command(
            REFINED_ROUTING,
            **dict(
                output_dir=folder,
                dense_flags=shlex.join(["--seed", str(seed), *study.further]),
            ),
            **dict(seed=seed, resume=True, init_eps=study.init_eps, from_model=True, **UNREFINED),
            further=(*study.as_words(GradientFlags, self.recipe.model), *study.further),
        )
        return self.scored(folder, lambda: [routing], self.gym)

    def two_stages(self, seed: int) -> Run:
        """Two stages of --total_steps each, the first of them a run of straight_through; or of half of the FLOPs each."""
        study, folder = self.study, self.folder("two_stage", seed)
        if study.match == "steps":
            stage1 = self.run(STAGE1, seed)
            return self.scored(folder, lambda: [self.second_stage(folder, seed, stage1.folder)], (stage1,))
        flags = TwoStages(output_dir=folder, init_eps=study.init_eps, further=study.further)
        first, training = folder / "stage1", self.flags(STAGE1, seed)
        steps = self.steps(seed, folder, "steps_of", self.recipe.train(first, *training))

        def stage1_commands() -> list[list[str]]:
            half = (counted_steps(steps) + 1) // 2
            return [self.recipe.with_(total_steps=half).train(first, *training, "--resume")]

        stage1 = self.scored(first, stage1_commands, (steps,))
        merging = merge_command(self.recipe, flags)
        merged = Run(f"two_stage/seed{seed}/init", folder, lambda: [merging], (stage1,), "init/config.json")
        stage2 = stage2_command(stage2_of(self.recipe, flags), flags, "--seed", str(seed), *study.further)
        steps2 = self.steps(seed, folder, "stage2_steps_of", stage2, (merged,))
        return self.scored(
            folder, lambda: [self.second_stage(folder, seed, first, counted_steps(steps2))], (steps2,)
        )

    def second_stage(self, folder: Path, seed: int, stage1: Path, steps: int | None = None) -> list[str]:
        study = replace(self.study, stage2_steps=steps or self.study.stage2_steps)
        return command(
            TWO_STAGES,
            **dict(output_dir=folder, stage1=stage1, seed=seed, resume=True),
            further=(*study.as_words(StageFlags, self.recipe.model), *study.further),
        )


# ---- the study


def compare(study: RoutingsStudy) -> int:
    recipe = TrainingRecipe.chosen(study)
    seeds = " ".join(map(str, study.seeds))
    steps = f"{recipe.total_steps} steps"
    print(recipe.announced(f"model {recipe.model}", steps, study.output_dir, study.further))
    print(f"variants: {' '.join(study.variants)}; seeds: {seeds}; {study.jobs} at a time", flush=True)
    runs = Runs(study, recipe)
    recipe.set_threads()
    left = study.runner().run([runs.run(name, seed) for name in study.variants for seed in study.seeds])
    status = report_unfinished(left)
    print(f"All runs, including earlier calls: {minutes(study.output_dir):.1f} minutes\n", flush=True)
    return tables(study) or status


def tables(study: RoutingsStudy) -> int:
    """Prints and writes the comparison of all variants with runs, also of earlier calls; returns the exit code."""
    folder = study.output_dir
    if not any(folder.glob(f"*/*/{SCORES}")):
        return 1
    order = tuple(name for name in NAMES if any(folder.glob(f"{name}/*/run.json")))
    baseline = study.baseline or ("multitask" if any(folder.glob(f"multitask/*/{SCORES}")) else None)
    return call_here(command("routing_moe.cli.compare_runs", folder, order=order or None, baseline=baseline))


def main(argv: list[str] | None = None) -> int:
    return run_study(compare, RoutingsStudy, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
