"""The runs of the conflict study: levels of conflict, gyms, what variants start from, tuned learning rates."""

import csv
import json
import math
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloader.atomic_files import write_text
from dataloader.jsonfile import load_json_object
from dataloader.task_splits import load_split
from routing_moe.io.run_folder import REASSIGNED_ROUTES_FILE
from routing_moe.results.scores import ScoresFile
from routing_moe.studies.conflict_settings import ConflictStudy, saved_rates
from routing_moe.studies.conflict_variants import (
    BASE_RATE,
    MORE_RATES,
    NEAREST_CLUSTER,
    VARIANTS,
    Budget,
    rate_of,
    tuned,
)
from routing_moe.studies.recipes import SCORES
from routing_moe.studies.runs import Run, counted_steps, counting_run


@dataclass(frozen=True)
class Level:
    """Gyms of one level of conflict and number of skills, which share steps and learning rates."""

    study: ConflictStudy
    conflict: float

    @property
    def skills(self) -> int:
        return self.study.skills

    @property
    def name(self) -> str:
        return self.study.level_name(self.conflict)

    @property
    def folder(self) -> Path:
        return self.study.output_dir / self.name

    @property
    def budget(self) -> Budget:
        return self.study.budget(self.conflict)

    def gym(self, seed: int) -> "ConflictGym":
        return ConflictGym(self, seed)

    # ---- learning rates

    def rates(self, name: str) -> tuple[float, ...]:
        """Returns the grid of a variant."""
        return self.study.rates + (MORE_RATES if VARIANTS[name].has_lora else ())

    def tuning_runs(self, names: Iterable[str]) -> list[Run]:
        """Returns the runs that tune the rates of these variants."""
        study = self.study
        if not study.tunes:
            return []
        return [
            self.gym(s).run(name, rate)
            for name in tuned(names)
            for rate in self.rates(name)
            for s in study.tune_seeds
        ]

    def dev_scores(self, name: str) -> dict[float, float]:
        """Returns {rate: mean best dev score of the tuning gyms} of the rates whose runs are all finished."""
        scores = {}
        for rate in sorted(self.rates(rate_of(name))):
            runs = [self.gym(seed).run(rate_of(name), rate) for seed in self.study.tune_seeds]
            if all(run.is_finished for run in runs):
                scores[rate] = float(np.mean([best_dev_score(run.folder) for run in runs]))
        return scores

    def chosen_rate(self, name: str) -> float:
        """Returns the rate with the best dev score; of equal ones the lowest. Raises RuntimeError if there is none.

        At a high rate, training may diverge; such a rate is not chosen. A single rate of the study is that of
        all variants.
        """
        if len(self.study.rates) == 1:
            return self.study.rates[0]
        if rate := VARIANTS[rate_of(name)].rate:
            return rate
        if self.study.rates_of:
            return saved_rates(self.study.rates_of)[self.name, rate_of(name)]
        scores = self.dev_scores(name)
        if not scores:
            raise RuntimeError(f"{self.name}: no tuning run of {rate_of(name)} is finished")
        return max(scores, key=scores.get)


def best_dev_score(folder: Path) -> float:
    with (folder / "losses.csv").open() as file:
        return max(float(row["dev_performance"]) for row in csv.DictReader(file))


@dataclass(frozen=True)
class ConflictGym:
    """A gym of a level, with the runs on it."""

    level: Level
    seed: int

    @property
    def study(self) -> ConflictStudy:
        return self.level.study

    @property
    def name(self) -> str:
        return f"{self.level.name}_seed{self.seed}"

    @property
    def folder(self) -> Path:
        return self.study.output_dir / "gyms" / self.name

    @property
    def side(self) -> int:
        """The number of encoder-side parts of skills, and of decoder-side parts."""
        return math.isqrt(self.level.skills)

    def short(self, folder: Path) -> str:
        """Returns the name of a run."""
        return str(folder.relative_to(self.study.output_dir))

    # ---- what variants start from

    def gym(self) -> Run:
        command = arguments(
            "task.conflict_gym.generate --output_dir {gym} --conflict {conflict} --encoder_parts {side} "
            "--decoder_parts {side} --tasks {tasks} --seed {seed}",
            gym=self.folder / "gym", conflict=f"{self.level.conflict:g}", side=self.side, seed=self.seed,
            tasks=self.study.tasks_per_skill * self.level.skills,
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
        folder, steps = self.study.output_dir / "dense_runs" / self.name, self.level.budget.dense
        flags = arguments(f"--num_experts 1 --hide_task_names --save_period {steps // 10}")
        command = self.training(folder, steps, self.study.dense_rate, flags, width=16)
        return Run(self.short(folder), folder, lambda: [command], needs=(self.bart(16),), result=SCORES)

    def vectors(self) -> Run:
        """The gradient vectors of all tasks."""
        folder, dense = self.study.output_dir / "vectors" / self.name, self.dense_run()
        command = arguments(
            "task.task_emb.gradient --train_dir {gym} --model {dense} --max_input_length 16 --output_dir {folder} "
            "--max_output_length 8 --hide_task_names --quiet --checkpoint_names",
            gym=self.folder / "gym", dense=dense.folder, folder=folder,
        )  # fmt: skip
        command += [f"{i * self.level.budget.dense // 10}-steps" for i in range(5, 11)]
        return Run(self.short(folder), folder, lambda: [command], needs=(dense,), result="meta.json")

    def refinement(self) -> Run:
        """The mixture whose refined routes another one has; it ends with its last re-assignment."""
        folder, steps = self.study.output_dir / "refinements" / self.name, self.level.budget.refinement_run

        def commands() -> list[list[str]]:
            rate = self.level.chosen_rate("refined")
            return [self.training(folder, steps, rate, self.flags_of("refined", rate), width=16)]

        return Run(self.short(folder), folder, commands, needs=(self.vectors(),), result=SCORES)

    def composed_routes(self) -> Run:
        """The routes of the refinement's clusters, composed of as many experts per layer as one side has parts."""
        refinement = self.refinement()
        folder, result = refinement.folder, f"composed{self.side}_routes.json"

        def commands() -> list[list[str]]:
            refined = load_json_object(folder / REASSIGNED_ROUTES_FILE, "refined routes")
            if max(refined.values()) < self.side:  # there is nothing to compose
                write_text(folder / result, json.dumps(refined))
                return []
            return [
                arguments("routing_moe.cli.compose {run} --num_experts {side}", run=folder, side=self.side)
            ]

        name, log = self.short(folder / result), refinement.log_file
        return Run(name, folder, commands, needs=(refinement,), result=result, log=log)

    def random_groups(self) -> Path:
        """Writes a file that divides the train tasks at random into 1.5 times as many groups as skills; returns it."""
        path, tasks = self.folder / "random_groups.json", load_split(self.folder / "gym/split.json").train
        groups_N = np.random.default_rng(self.seed).permutation(len(tasks)) % (self.level.skills * 3 // 2)
        write_text(path, json.dumps(dict(zip(tasks, groups_N.tolist(), strict=True))))
        return path

    # ---- training

    def run(self, name: str, rate: float | None = None) -> Run:
        """The run of a variant, with its tuned learning rate; rate: that of a tuning run."""
        variant, folder = VARIANTS[name], self.level.folder / name / f"seed{self.seed}"
        if rate is not None:
            tuning = self.study.output_dir / "tuning" / self.level.name
            folder = tuning / name / f"lr{rate:g}" / f"seed{self.seed}"
        sources = ("composed_routes", "refinement", "vectors", "dense_run")
        needs = [getattr(self, name)() for name in sources if f"{{{name}}}" in variant.flags]
        needs = needs or [self.bart(variant.width)]
        if variant.first_stage:
            needs.append(self.first_stage(name, folder, rate))
        if variant.flops_of:
            needs.append(self.equal_flops(name, folder))

        def commands() -> list[list[str]]:
            training = self.training_of(name, folder, rate or self.level.chosen_rate(name))
            return [*self.merging(name, folder), training]

        return Run(self.short(folder), folder, commands, needs=tuple(needs))

    def compared(self, name: str) -> Run:
        """The last run of a variant: of its scores on the unseen tasks, else its training."""
        training = self.run(name)
        if name not in self.study.unseen:
            return training
        folder = training.folder
        scoring = "routing_moe.cli.train --do_predict --predict_split test --output_dir {folder} "

        def commands() -> list[list[str]]:
            vectors = self.vectors().folder
            return [arguments(scoring + own, folder=folder, vectors=vectors) for own in VARIANTS[name].unseen]

        log, last = folder.with_name(f"{folder.name}.unseen.log"), VARIANTS[name].unseen[-1]
        result = ScoresFile(section="test", prefix=NEAREST_CLUSTER if NEAREST_CLUSTER in last else "").path
        return Run(f"{training.name}/unseen", folder, commands, needs=(training,), result=result, log=log)

    def first_stage(self, name: str, folder: Path, rate: float | None) -> Run:
        """The training whose routes a variant keeps."""
        stage1, steps = folder / "stage1", self.level.budget.total // 2

        def commands() -> list[list[str]]:
            own = rate or self.level.chosen_rate(name)
            flags = self.flags_of(VARIANTS[name].first_stage, own)
            return [self.training(stage1, steps, own, flags, width=16)]

        needs, log = (self.bart(16),), folder.with_name(f"{folder.name}.log")
        return Run(self.short(stage1), stage1, commands, needs, result=SCORES, log=log)

    def equal_flops(self, name: str, folder: Path) -> Run:
        """The number of steps of a variant, whose training is continued with the same number."""
        variant = VARIANTS[name]

        def training() -> list[str]:
            rate = self.level.chosen_rate(name)
            flags = self.flags_of(name, rate)
            return self.training(folder, self.level.budget.total, rate, flags, variant.width)

        needs, file = (self.bart(variant.width), self.run(variant.flops_of)), f"steps_of_{variant.flops_of}"
        return counting_run(self.study.output_dir, folder, file, training, needs)

    def merging(self, name: str, folder: Path) -> list[list[str]]:
        """Returns the command, if any, that joins the routes of the first stage and new experts."""
        if not VARIANTS[name].first_stage:
            return []
        command = "routing_moe.cli.merge --routes_from {stage1} --model {bart} --init_eps 1e-2 --output_dir {folder}"
        stage1, bart = folder / "stage1", self.bart(16).folder
        return [arguments(f"{command} --keep_existing", stage1=stage1, bart=bart, folder=folder)]

    def training_of(self, name: str, folder: Path, rate: float) -> list[str]:
        """Returns the command that trains a variant, or its second stage."""
        variant, budget = VARIANTS[name], self.level.budget
        steps, width = budget.total, variant.width
        steps -= budget.dense if variant.has_dense_run else 0
        steps -= budget.refinement_run if variant.has_refined_routes else 0
        if variant.first_stage:
            steps, width = steps - steps // 2, None
        if variant.flops_of:
            steps = counted_steps(self.equal_flops(name, folder))
        return self.training(folder, steps, rate, self.flags_of(name, rate), width)

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

    def flags_of(self, name: str, rate: float) -> list[str]:
        """Returns the flags of a variant's row. rate: its learning rate."""
        variant, budget = VARIANTS[name], self.level.budget
        words = arguments(
            variant.flags,
            router_lr=f"{self.study.router_lr:g}",
            base_lr=f"{BASE_RATE * rate:g}",
            anneal_rate=f"{2.3 / budget.total:g}",
            anneal_rate_of_average=f"{6 / (budget.total // 2):g}",
            last_move=budget.refinement,
            side=self.side,
            gym=self.folder / "gym",
            vectors=self.vectors().folder,
            dense_run=self.dense_run().folder,
            refinement=self.refinement().folder,
            composed_routes=self.refinement().folder / self.composed_routes().result,
            random_groups=self.random_groups() if "{random_groups}" in variant.flags else "",
        )
        return words + (shlex.split(self.study.refine_flags) if variant.is_refined else [])


def arguments(text: str, **values) -> list[str]:
    """Returns the words of a text with {names}, which are replaced: values may have spaces."""
    return [word.format(**values) for word in text.split()]
