"""The flags of the conflict study."""

import csv
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

from routing_moe.config.flags import AT_LEAST_1, POSITIVE, PROBABILITY, SEED, Range, group
from routing_moe.studies.conflict_variants import BUDGETS, DEFAULT, DENSE_RATE, VARIANTS, Budget, tuned
from routing_moe.studies.study import RUNNING, Study

COMPARED = group("what is compared")
TRAINING = group("training")
SQUARE = Range(lambda value: 4 <= value <= 64 and math.isqrt(value) ** 2 == value, "a square from 4 to 64")
RATES = (0.0015, 0.003, 0.006, 0.012, 0.024)


@dataclass(frozen=True, kw_only=True)
class ConflictStudy(Study):
    # fmt: off
    program = "routing-moe study conflict"
    usage = "[--variants NAME ...] [--conflicts C ...] [--seeds SEED ...] [further flags, see --help]"
    groups = ("what is compared", "training", "running")

    variants: tuple[str, ...] = COMPARED(DEFAULT, "variants, see above", choices=VARIANTS, metavar="NAME", on_resume=True)
    unseen: tuple[str, ...] = COMPARED(tuple(name for name in DEFAULT if name != "dense_flops"), "variants whose runs also score the unseen tasks", choices=VARIANTS, metavar="NAME", on_resume=True)
    conflicts: tuple[float, ...] = COMPARED((0.0, 0.5, 1.0), "levels of conflict", range=PROBABILITY, on_resume=True)
    skills: int = COMPARED(16, "number of hidden skills, a square", range=SQUARE, on_resume=True)
    seeds: tuple[int, ...] = COMPARED((201, 202, 203, 204, 205, 206, 207, 208, 209, 210), "seeds", range=SEED, on_resume=True)
    tasks_per_skill: int = COMPARED(4, "train tasks of a skill", range=AT_LEAST_1)
    gym_flags: str = COMPARED("", 'further flags of `routing-moe conflict-gym`, such as "--label_noise 0.1"')
    total_steps: int | None = TRAINING(None, "steps of every variant, including the dense run (default: those of the level in conflict_variants.py)", range=AT_LEAST_1)
    dense_steps: int | None = TRAINING(None, "steps of the dense run, a multiple of 10: it keeps 10 checkpoints (default: those of the level)", range=AT_LEAST_1)
    refine_steps: int | None = TRAINING(None, "step of a refined mixture after which tasks no longer move (default: that of the level)", range=AT_LEAST_1)
    dense_rate: float = TRAINING(DENSE_RATE, "learning rate of the dense run", range=POSITIVE)
    refine_flags: str = TRAINING("", 'further flags of `routing-moe train` for refined mixtures, such as "--reassign_margin 2"')
    rates: tuple[float, ...] = TRAINING(RATES, "learning rates; of several, each kind of model is trained with each on the gyms of --tune_seeds of the same level, and has the one with the best mean dev score", range=POSITIVE)
    tune_seeds: tuple[int, ...] = TRAINING((101,), "seeds of the gyms that rates are tuned on, none of --seeds", range=SEED)
    rates_of: Path | None = TRAINING(None, "tuning.csv of another study, which has the learning rates; none are tuned")
    router_lr: float = TRAINING(0.01, "learning rate of routers and trained task vectors", range=POSITIVE)
    output_dir: Path = RUNNING(Path("models/compare_conflict"), "folder of the study", on_resume=True)
    # fmt: on

    @property
    def tunes(self) -> bool:
        return len(self.rates) > 1 and not self.rates_of

    def budget(self, conflict: float) -> Budget | None:
        """Returns the steps of the flags, else of the table; None if neither has all of them."""
        known = BUDGETS.get((conflict or 1.0, self.skills))
        steps = dict(total=self.total_steps, dense=self.dense_steps, refinement=self.refine_steps)
        given = {name: value for name, value in steps.items() if value is not None}
        if known:
            return replace(known, **given)
        return Budget(**given) if len(given) == len(steps) else None

    def level_name(self, conflict: float) -> str:
        return f"conflict{conflict:g}_{self.skills}skills"

    @property
    def trained(self) -> tuple[str, ...]:
        """The variants, and before them those whose FLOPs they have."""
        names = ((VARIANTS[variant].flops_of, variant) for variant in self.variants)
        return tuple(dict.fromkeys(name for pair in names for name in pair if name))

    def problems(self) -> list[str]:
        problems = super().problems()
        if both := set(self.tune_seeds) & set(self.seeds):
            problems.append(f"--seeds holds {min(both)}, a seed that rates are tuned on (--tune_seeds)")
        if self.tunes and re.search(r"--select_by[ =]+answer_loss", self.refine_flags):
            problems.append(
                f'--refine_flags "{self.refine_flags}": rates are chosen by dev scores, which evaluations with '
                "--select_by answer_loss do not have; give one of --rates, or --rates_of"
            )
        if self.rates_of and not self.rates_of.is_file():
            problems.append(f"--rates_of {self.rates_of}: no such file; give the tuning.csv of a study")
        elif self.rates_of:
            known = saved_rates(self.rates_of)
            problems += [
                f"--rates_of {self.rates_of} has no rate of {name} for {level}"
                for level in map(self.level_name, self.conflicts)
                for name in tuned(self.trained)
                if (level, name) not in known
            ]
        for conflict in self.conflicts:
            budget = self.budget(conflict)
            if not budget:
                problems.append(
                    f"--conflicts {conflict:g} --skills {self.skills} has no fixed number of steps; give "
                    "--total_steps, --dense_steps and --refine_steps"
                )
            elif budget.dense % 10 or budget.dense + budget.refinement_run >= budget.total:
                problems.append(
                    f"--dense_steps is {budget.dense}; it must be a multiple of 10, and with --refine_steps "
                    f"({budget.refinement}) below --total_steps ({budget.total})"
                )
        return list(dict.fromkeys(problems))


def saved_rates(file: Path) -> dict[tuple[str, str], float]:
    """Returns {(level, variant): chosen rate} of a tuning.csv."""
    with file.open() as rows:
        return {
            (row["level"], row["variant"]): float(row["rate"])
            for row in csv.DictReader(rows)
            if row.get("chosen") == "True"
        }
