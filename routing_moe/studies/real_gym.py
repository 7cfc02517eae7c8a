"""The paper's study on real tasks, at a scale for a laptop: from a small BART that knows English, with own baselines.

    bash example_scripts/real_gym_study.sh --train_dir data/gym --dry_run      its runs, and their hours here
    bash example_scripts/real_gym_study.sh --train_dir data/gym
    bash example_scripts/real_gym_study.sh --train_dir data/gym --seeds 42 43 --variants multitask two_stage

Multi-task training, average, task-random and learned routes, two stages, clusters of gradient and of Fisher vectors, and
the ontology's categories as routes. Every variant has the same number of steps in all: the two stages share them, and those
of the BART whose gradients are clustered count. Then unseen tasks, zero-shot by ranking and in few-shot grids, from each of
these starts. tables/study.md has the tables, with gains (ARG) over multi-task training, tables/report.html the routes. The
same command continues after an interruption; the third adds runs of another seed to those of the second.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from routing_moe.config.flags import AT_LEAST_1, NOT_NEGATIVE, POSITIVE, group
from routing_moe.studies.paper import PaperStudy, run
from routing_moe.studies.study import RUNNING, run_study

SCALE = group("scale")
VARIANTS = (
    "multitask", "average", "task_random", "straight_through", "two_stage", "gradient_routing", "gradient_upcycled",
    "fisher_clusters", "ontology",
)  # fmt: skip
DEFAULTS = dict(
    recovery=("category", "format", "domain", "skill"), clusters="8", init_eps=1e-3, ablate_flags="none",
    vector_steps=30,  # few, but 2500 as published take longer than everything else
    vector_flags="--task_names --max_examples 64", learning_rate_list=(1e-4, 3e-4), bsz_list=(8,), samples=("100", "13", "21"),
    few_shot_steps=50, few_shot_eval_period=25, warmup_steps=5, variants=VARIANTS,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RealGymStudy(PaperStudy):
    # fmt: off
    program = "routing-moe study real-gym"

    output_dir: Path = RUNNING(Path("models/real_gym_study"), "folder of all results", on_resume=True)
    total_steps: int = SCALE(1200, "steps of each variant, half of them for each stage of two_stage", range=AT_LEAST_1)
    denoising_steps: int = SCALE(1600, "steps of the warm-up of the BART that english_bart.sh makes in OUTPUT_DIR/english_bart, unless --model is given; 0: none", range=NOT_NEGATIVE)
    rate: float = SCALE(3e-4, "learning rate of training", range=POSITIVE)
    scored: int = SCALE(100, "rows of each test file that are scored: of a train task, and three times as many of an unseen task for zero-shot, twice as many for few-shot scores", range=AT_LEAST_1)
    cased: bool = SCALE(False, "--model distinguishes upper and lower case")
    # fmt: on

    def resolved(self) -> "RealGymStudy":
        """Fills in the defaults of this study where the flag is not given, then those of the paper's."""
        half, rows = -(-self.total_steps // 2), self.scored
        lower = "" if self.cased else "--do_lowercase "
        steps = self.eval_period or -(-self.total_steps // 4)
        values = DEFAULTS | dict(
            eval_period=steps,
            stage1_steps=half,
            stage2_steps=self.total_steps - half,
            stage2_eval_period=steps,
            text_flags=f"{lower}--max_input_length 192",
            train_flags=f"--learning_rate {self.rate:g} --num_beams 1 --predict_max_examples {rows}",
            # Temperatures fall from 2 to 0.3 in 40% of the steps, so in 80% of those of the first stage.
            router_flags=f"--router_lr 1e-2 --minimum_tau 0.3 --anneal_rate {4.7 / self.total_steps:g}",
            zero_shot_flags=f"--scoring rank --predict_max_examples {3 * rows}",
            few_shot_flags=f"--num_beams 1 --predict_max_examples {2 * rows}",
        )
        if not self.model:
            folder = self.output_dir / "english_bart"
            name = "warm_bart" if self.denoising_steps else "bart"
            values |= dict(model=str(folder / name), english_bart=folder, warm_up_steps=self.denoising_steps)
        values = {name: value for name, value in values.items() if name not in self.given}
        return super(RealGymStudy, replace(self, **values)).resolved()

    def problems(self) -> list[str]:
        if not self.train_dir or not self.gym_is_given:
            return ["--train_dir is not given; give a gym folder, such as data/gym of build_gym.sh"]
        return super().problems()


def main(argv: list[str] | None = None) -> int:
    return run_study(lambda study: run(study, argv), RealGymStudy, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
