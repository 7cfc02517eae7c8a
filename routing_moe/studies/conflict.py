"""Compare routings with dense models on conflict gyms, where tasks of different skills contradict each other.

    routing-moe study conflict
    routing-moe study conflict --jobs 2 --conflicts 1 --seeds 11 12 --variants dense clusters oracle

At several levels of conflict, with several seeds: a gym (docs/conflict_gym.md) and an untrained BART each. All
variants have the same number of steps, which includes those of the dense run that task vectors are computed
with. --output_dir gets gyms/, dense_runs/, vectors/, tuning/ and conflict<c>_<n>skills/<variant>/seed<seed>/.
Of every level of conflict, overview.md has cost, scores and agreement of routes with skills; comparison.md
differences with intervals; comparison_curves.csv curves. A second call keeps finished runs and continues the
others.

variants:
"""

import csv
import json
import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from dataloader.atomic_files import write_text
from dataloader.task_splits import load_split
from routing_moe.config.flags import AT_LEAST_1, POSITIVE, PROBABILITY, SEED, Range, group
from routing_moe.studies.conflict_variants import VARIANTS, described, rate_of
from routing_moe.studies.recipes import SCORES, device
from routing_moe.studies.runs import Run, call_here, report_unfinished
from routing_moe.studies.study import RUNNING, Study, run_study

COMPARED = group("what is compared")
TRAINING = group("training")
SQUARE = Range(lambda value: 4 <= value <= 64 and math.isqrt(value) ** 2 == value, "a square from 4 to 64")


@dataclass(frozen=True, kw_only=True)
class ConflictStudy(Study):
    # fmt: off
    program = "routing-moe study conflict"
    usage = "[--variants NAME ...] [--conflicts C ...] [--seeds SEED ...] [further flags, see --help]"
    groups = ("what is compared", "training", "running")

    variants: tuple[str, ...] = COMPARED(tuple(VARIANTS), "variants, see above", choices=VARIANTS, metavar="NAME", on_resume=True)
    unseen: tuple[str, ...] = COMPARED(("dense", "softmax", "clusters", "composed", "oracle"), "variants whose runs also score the unseen tasks", choices=VARIANTS, metavar="NAME", on_resume=True)
    conflicts: tuple[float, ...] = COMPARED((0.0, 0.5, 1.0), "levels of conflict", range=PROBABILITY, on_resume=True)
    skills: int = COMPARED(16, "number of hidden skills, a square", range=SQUARE, on_resume=True)
    seeds: tuple[int, ...] = COMPARED((11, 12, 13, 14, 15), "seeds", range=SEED, on_resume=True)
    tasks_per_skill: int = COMPARED(4, "train tasks of a skill", range=AT_LEAST_1)
    gym_flags: str = COMPARED("", 'further flags of `routing-moe conflict-gym`, such as "--label_noise 0.1"')
    total_steps: int = TRAINING(2400, "steps of every variant, including the dense run", range=AT_LEAST_1)
    dense_steps: int = TRAINING(1200, "steps of the dense run, a multiple of 10: it keeps 10 checkpoints", range=AT_LEAST_1)
    dense_rate: float = TRAINING(0.003, "learning rate of the dense run", range=POSITIVE)
    rates: tuple[float, ...] = TRAINING((0.003, 0.006, 0.012), "learning rates; of several, each variant, or one of its kind, is trained with each on a gym of --tune_seed at conflict 1 with 16 skills, and has the one with the best dev score", range=POSITIVE)
    tune_seed: int = TRAINING(101, "seed of the gym that rates are tuned on, none of --seeds", range=SEED)
    router_lr: float = TRAINING(0.01, "learning rate of routers and trained task vectors", range=POSITIVE)
    output_dir: Path = RUNNING(Path("models/compare_conflict"), "folder of the study", on_resume=True)
    # fmt: on

    @property
    def trained(self) -> tuple[str, ...]:
        """The variants, and before them those whose FLOPs they have."""
        names = ((VARIANTS[variant].flops_of, variant) for variant in self.variants)
        return tuple(dict.fromkeys(name for pair in names for name in pair if name))

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.tune_seed in self.seeds:
            problems.append(f"--seeds holds {self.tune_seed}, the seed that rates are tuned on (--tune_seed)")
        if self.dense_steps % 10 or self.dense_steps >= self.total_steps:
            problems.append(
                f"--dense_steps is {self.dense_steps}; it must be a multiple of 10 below --total_steps "
                f"({self.total_steps})"
            )
        return problems


@dataclass(frozen=True)
class ConflictGym:
    """A gym of the study, with the runs on it."""

    study: ConflictStudy
    conflict: float
    skills: int
    seed: int

    @property
    def level(self) -> str:
        return f"conflict{self.conflict:g}_{self.skills}skills"

    @property
    def name(self) -> str:
        return f"{self.level}_seed{self.seed}"

    @property
    def folder(self) -> Path:
        return self.study.output_dir / "gyms" / self.name

    def short(self, folder: Path) -> str:
        """Returns the name of a run."""
        return str(folder.relative_to(self.study.output_dir))

    # ---- what variants start from

    def gym(self) -> Run:
        side, tasks = math.isqrt(self.skills), self.study.tasks_per_skill * self.skills
        command = arguments(
            "task.conflict_gym.generate --output_dir {gym} --conflict {conflict} --encoder_parts {side} "
            "--decoder_parts {side} --tasks {tasks} --seed {seed}",
            gym=self.folder / "gym", conflict=f"{self.conflict:g}", side=side, tasks=tasks, seed=self.seed,
        )  # fmt: skip
        command += shlex.split(self.study.gym_flags)
        return Run(self.short(self.folder), self.folder / "gym", lambda: [command], result="split.json")

    def bart(self, width: int) -> Run:
        """The untrained BART."""
        folder = self.folder / f"width{width}"
        command = arguments(
            "task.conflict_gym.bart --gym {gym} --width {width} --seed {seed} --output_dir {folder}",
            gym=self.folder / "gym", width=width, seed=self.seed, folder=folder,
        )  # fmt: skip
        return Run(self.short(folder), folder, lambda: [command], needs=(self.gym(),), result="config.json")

    def dense_run(self) -> Run:
        """The run without task names whose gradients, from the middle on, are the task vectors."""
        folder, steps = self.study.output_dir / "dense_runs" / self.name, self.study.dense_steps
        flags = arguments(f"--num_experts 1 --hide_task_names --save_period {steps // 10}")
        command = self.training(folder, steps, self.study.dense_rate, flags, width=16)
        return Run(self.short(folder), folder, lambda: [command], needs=(self.bart(16),), result=SCORES)

    def vectors(self, kind: str) -> Run:
        """The vectors of all tasks."""
        folder, dense = self.study.output_dir / "vectors" / self.name / kind, self.dense_run()
        second_half = [f"{i * self.study.dense_steps // 10}-steps" for i in range(5, 11)]
        flags_of = {
            "gradient": ["--max_output_length", "8", "--hide_task_names", "--checkpoint_names", *second_half],
            "text": [],
            # Of the dense model as it is, without training on the task.
            "fisher": arguments("--max_output_length 8 --weights layers --learning_rate 0 --total_steps 1"),
        }
        command = arguments(
            "{module} --train_dir {gym} --model {dense} --max_input_length 16 --output_dir {folder} --quiet",
            module=f"task.task_emb.{kind}", gym=self.folder / "gym", dense=dense.folder, folder=folder,
        )  # fmt: skip
        command += flags_of[kind]
        return Run(self.short(folder), folder, lambda: [command], needs=(dense,), result="meta.json")

    def task_routes(self) -> Path:
        """Writes a file that gives each train task an expert of its own; returns it."""
        path, tasks = self.folder / "task_routes.json", load_split(self.folder / "gym/split.json").train
        write_text(path, json.dumps({task: expert for expert, task in enumerate(tasks)}))
        return path

    # ---- training

    def run(self, name: str, rate: float | None = None) -> Run:
        """The run of a variant, with its tuned learning rate; rate: that of a tuning run."""
        variant, folder = VARIANTS[name], self.study.output_dir / self.level / name / f"seed{self.seed}"
        if rate is not None:
            folder = self.study.output_dir / "tuning" / self.level / name / f"lr{rate:g}"
        needs = [self.vectors(variant.vectors) if variant.vectors else self.bart(variant.width)]
        if variant.first_stage:
            needs.append(self.first_stage(name, folder))
        if variant.flops_of:
            needs.append(self.equal_flops(name, folder))

        def commands() -> list[list[str]]:
            training = self.training_of(name, folder, rate or chosen_rate(self.study, name))
            return [*self.merging(name, folder), training, *self.prediction(name, folder, rate)]

        return Run(self.short(folder), folder, commands, needs=tuple(needs))

    def first_stage(self, name: str, folder: Path) -> Run:
        """The training whose routes a variant keeps."""
        stage1, steps = folder / "stage1", self.study.total_steps // 2

        def commands() -> list[list[str]]:
            flags = self.flags_of(VARIANTS[name].first_stage)
            return [self.training(stage1, steps, chosen_rate(self.study, name), flags, width=16)]

        needs, log = (self.bart(16),), folder.with_name(f"{folder.name}.log")
        return Run(self.short(stage1), stage1, commands, needs, result=SCORES, log=log)

    def equal_flops(self, name: str, folder: Path) -> Run:
        """The number of steps of a variant, in a file beside its run, which is continued with the same number."""
        variant, log = VARIANTS[name], folder.with_name(f"{folder.name}.log")
        other = self.run(variant.flops_of)

        def commands() -> list[list[str]]:
            rate, flags = chosen_rate(self.study, name), self.flags_of(name)
            training = self.training(folder, self.study.total_steps, rate, flags, variant.width)
            return [[*training, "--equal_flops", str(other.folder)]]

        file, needs = f"{folder.name}.steps_of_{variant.flops_of}", (self.bart(variant.width), other)
        return Run(
            self.short(folder.parent / file), folder.parent, commands, needs, file, printed=True, log=log
        )

    def merging(self, name: str, folder: Path) -> list[list[str]]:
        """Returns the command, if any, that joins the routes of the first stage and new experts."""
        if not VARIANTS[name].first_stage:
            return []
        command = "routing_moe.cli.merge --routes_from {stage1} --model {bart} --init_eps 1e-2 --output_dir {folder}"
        stage1, bart = folder / "stage1", self.bart(16).folder
        return [arguments(f"{command} --keep_existing", stage1=stage1, bart=bart, folder=folder)]

    def prediction(self, name: str, folder: Path, rate: float | None) -> list[list[str]]:
        """Returns the command, if any, that scores the unseen tasks."""
        if rate is not None or name not in self.study.unseen:
            return []
        command = "routing_moe.cli.train --do_predict --predict_split test --output_dir {folder}"
        return [arguments(command, folder=folder)]

    def training_of(self, name: str, folder: Path, rate: float) -> list[str]:
        """Returns the command that trains a variant, or its second stage."""
        variant, steps, width = VARIANTS[name], self.study.total_steps, VARIANTS[name].width
        if variant.vectors:
            steps -= self.study.dense_steps
        if variant.first_stage:
            steps, width = steps - steps // 2, None
        if variant.flops_of:
            steps = int(folder.with_name(f"{folder.name}.steps_of_{variant.flops_of}").read_text())
        return self.training(folder, steps, rate, self.flags_of(name), width)

    def training(
        self, folder: Path, steps: int, rate: float, flags: list[str], width: int | None
    ) -> list[str]:
        """Returns a command that trains and scores the train tasks.

        width: of the untrained BART that it starts from; None: it starts from a checkpoint in the folder.
        """
        if width:
            flags = [*flags, "--initialize_from_vanilla", "--model", str(self.bart(width).folder)]
        command = arguments(
            "routing_moe.cli.train --do_train --do_predict --resume --train_dir {gym} --output_dir {folder} "
            "--max_input_length 16 --max_output_length 8 --num_beams 1 --train_batch_size 64 "
            "--max_grad_norm 100 --learning_rate {rate} --total_steps {steps} --seed {seed} "
            "--eval_period {quarter}",
            gym=self.folder / "gym",
            folder=folder,
            rate=f"{rate:g}",
            steps=steps,
            seed=self.seed,
            quarter=-(-steps // 4),
        )
        return command + flags

    def flags_of(self, name: str) -> list[str]:
        """Returns the flags of a variant's row."""
        variant, steps = VARIANTS[name], self.study.total_steps
        return arguments(
            variant.flags,
            router_lr=f"{self.study.router_lr:g}",
            anneal_rate=f"{2.3 / steps:g}",
            anneal_rate_of_average=f"{6 / (steps // 2):g}",
            skills=self.skills,
            gym=self.folder / "gym",
            task_routes=self.task_routes() if "{task_routes}" in variant.flags else "",
            vectors=self.vectors(variant.vectors).folder if variant.vectors else "",
        )


def arguments(text: str, **values) -> list[str]:
    """Returns the words of a text with {names}, which are replaced: values may have spaces."""
    return [word.format(**values) for word in text.split()]


# ---- learning rates


def tuning_gym(study: ConflictStudy) -> ConflictGym:
    return ConflictGym(study, conflict=1.0, skills=16, seed=study.tune_seed)


def tuning_runs(study: ConflictStudy) -> list[Run]:
    if len(study.rates) == 1:
        return []
    names = dict.fromkeys(rate_of(name) for name in study.trained)
    return [tuning_gym(study).run(name, rate) for name in names for rate in study.rates]


def chosen_rate(study: ConflictStudy, name: str) -> float:
    """Returns the learning rate with the best dev score in the finished tuning runs; of equal ones the lowest.

    Raises RuntimeError if no tuning run is finished: at a high rate, training may diverge.
    """
    if len(study.rates) == 1:
        return study.rates[0]
    scores = {}
    for rate in sorted(study.rates):
        run = tuning_gym(study).run(rate_of(name), rate)
        if run.is_finished:
            with (run.folder / "losses.csv").open() as file:
                scores[rate] = max(float(row["dev_performance"]) for row in csv.DictReader(file))
    if not scores:
        raise RuntimeError(f"no tuning run of {rate_of(name)} is finished")
    return max(scores, key=scores.get)


# ---- the study


def compare(study: ConflictStudy) -> int:
    rates = ", ".join(f"{rate:g}" for rate in study.rates)
    print(
        f"BARTs of width 16 and 32, variants: {' '.join(study.variants)}; {study.skills} skills, conflicts: "
        f"{' '.join(f'{conflict:g}' for conflict in study.conflicts)}; seeds: {' '.join(map(str, study.seeds))}\n"
        f"{study.total_steps} steps, learning rates {rates}, {study.jobs} at a time; on {device()}; output in {study.output_dir}"
    )
    gyms = [
        ConflictGym(study, conflict, study.skills, seed)
        for conflict in study.conflicts
        for seed in study.seeds
    ]
    runner = study.runner(threads=1)
    # A variant does not need all of its tuning runs: those that diverge do not count.
    unfinished = runner.run(tuning_runs(study))
    unfinished += runner.run(gym.run(name) for name in study.trained for gym in gyms)
    exit_code = report_unfinished(list(dict.fromkeys(unfinished)))
    print()
    for name in study.trained:
        try:
            print(f"learning rate of {name}: {chosen_rate(study, name):g}")
        except RuntimeError as error:
            print(f"learning rate of {name}: error: {error}")
    for level in dict.fromkeys(gym.level for gym in gyms):
        exit_code = tables(study.output_dir / level) or exit_code
    return exit_code


def tables(folder: Path) -> int:
    """Writes and prints the tables of a level, of all variants with finished runs, also of earlier calls."""
    order = [name for name in VARIANTS if any(folder.glob(f"{name}/*/finished"))]
    if not order:
        return 0
    print(f"\n{folder.name}:\n", flush=True)
    flags = [str(folder), "--gym_per_seed", "--order", *order]
    baseline = ["--baseline", "dense"] if "dense" in order else []
    overview = call_here(["routing_moe.cli.overview", *flags, "--recovery", "skill"])
    return call_here(["routing_moe.cli.compare_runs", *flags, *baseline]) or overview


def main(argv: list[str] | None = None) -> int:
    return run_study(compare, ConflictStudy, argv, f"{__doc__}{described()}")


if __name__ == "__main__":
    sys.exit(main())
