"""The runs of the study on real tasks: one dense run for each seed, and the arms that continue it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.jsonfile import load_json_object
from dataloader.task_splits import Split, load_split
from routing_moe.studies.costed_runs import ROWS_OF_SAMPLE, STEP, Answering, CostedRun, Work
from routing_moe.studies.real_arms import ARMS, LORA_FACTOR, ONE, Arm, rate_of
from routing_moe.studies.real_settings import RealLabels, RealStudy, RealTrain
from routing_moe.studies.recipes import SCORES, TrainingRecipe, command, number
from routing_moe.studies.runs import FINISHED, Run, counted_steps, counting_run
from routing_moe.studies.vectors import vectors_command

DEV_SCORES, LOSSES = "best/eval-dev-performance.csv", "losses.csv"
RATES_FILE = "rates.json"  # the chosen rates, which later calls keep
PARTS_OF_DENSE_RUN = 4  # a checkpoint is kept after each; gradients are means over those of the second half
FIRST_DENSE_SEED = 1000  # of batches: the dense run for seed 42 of an arm has seed 1042
N_TASKS = 80  # about, for the estimate of hours


def english_bart_run(study: RealStudy) -> Run:
    """The run that makes the model."""
    making = command(
        "routing_moe.studies.english_bart",
        **dict(output_dir=study.english_bart, warm_up_steps=study.denoising_steps, train_dir=study.train_dir),
        **dict(custom_tasks_splits=study.custom_tasks_splits, mixed_precision=study.mixed_precision),
        cased=study.cased,
    )
    return Run("model", Path(study.model), lambda: [making], result="config.json")


def texts_of(study: RealStudy) -> list[str]:
    """Returns the flags on texts of all commands."""
    return command(
        do_lowercase=not study.cased,
        max_input_length=study.max_input_length,
        max_output_length=study.max_output_length,
        skip_malformed=True,  # some published files have lines that line feeds in their texts break
    )


def scoring_of(study: RealStudy, scoring: str = "rank") -> list[str]:
    """Returns the flags of scores: answer loss of all tasks, rank accuracy of those with options."""
    return command(
        scoring=scoring,
        measures=("answer_loss", "rank_accuracy"),
        num_beams=1,
        predict_max_examples=study.scored,
    )


@dataclass(frozen=True)
class Branches:
    """The runs of the parts about train tasks."""

    study: RealTrain

    @cached_property
    def recipe(self) -> TrainingRecipe:
        return TrainingRecipe.chosen(self.study).with_(gym=self.gym, split=self.split_file)

    @property
    def folder(self) -> Path:
        return self.study.output_dir

    @property
    def relabels(self) -> bool:
        return isinstance(self.study, RealLabels)

    @property
    def gym(self) -> Path:
        return self.folder / "gym" if self.relabels else self.study.train_dir

    @property
    def split_file(self) -> Path:
        return self.gym / "split.json" if self.relabels else self.study.split_file

    @cached_property
    def split(self) -> Split:
        return load_split(self.split_file)

    # ---- before the arms

    def before(self) -> list[Run]:
        """Returns the runs that make the model and the relabelled gym, if the study does."""
        study, runs = self.study, []
        if study.makes_model:
            runs.append(english_bart_run(study))
        if self.relabels:
            relabelling = command(
                "task.conflict_gym.relabel",
                **dict(gym=study.train_dir, split=study.custom_tasks_splits, share=study.share),
                **dict(output_dir=self.gym, skip_malformed=True),
            )
            runs.append(Run("gym", self.gym, lambda: [relabelling], result="split.json"))
        return runs

    def dense(self, seed: int) -> CostedRun:
        """The run that all arms continue."""
        study, folder = self.study, self.folder / "dense" / f"seed{seed}"
        steps = study.dense_steps
        flags = command(num_experts=1, save_period=self.period, hide_task_names=study.hide_names_dense)
        # With the seed of the arms, these would begin with the rows of its first steps, in the same order.
        order = seed + FIRST_DENSE_SEED
        training = self.train(folder, order, steps, study.dense_rate, flags, scored=False)
        return self.trained(folder, lambda: [training], tuple(self.before()), "dense", "plain", steps)

    @property
    def period(self) -> int:
        """Steps between the kept checkpoints of the dense run."""
        return max(1, self.study.dense_steps // PARTS_OF_DENSE_RUN)

    def vectors(self, seed: int) -> CostedRun:
        """Gradient vectors of the second half of the dense run."""
        study, folder, dense = self.study, self.folder / "vectors" / f"seed{seed}", self.dense(seed)
        saved = range(self.period, study.dense_steps + 1, self.period)
        late = [f"{step}-steps" for step in saved if 2 * step >= study.dense_steps]
        computing = vectors_command(
            self.recipe,
            "gradient",
            folder,
            *texts_of(study),
            **dict(model=dense.folder, checkpoint_names=tuple(late), weights="layers", tasks="train"),
            **dict(mixed_precision=self.recipe.mixed_precision, hide_task_names=study.hide_names_dense),
            minus_shuffled=study.minus_shuffled or None,
        )
        passes = len(late) * (1 + study.minus_shuffled)
        work = (Work("plain", passes * ROWS_OF_SAMPLE * N_TASKS // STEP),)
        return CostedRun(
            f"vectors/seed{seed}",
            folder,
            lambda: [computing],
            (dense,),
            "meta.json",
            step="vectors",
            work=work,
        )

    def trained(
        self,
        folder: Path,
        commands: Callable[[], list[list[str]]],
        needs: tuple[Run, ...],
        step: str,
        kind: str,
        steps: int,
    ) -> CostedRun:
        """Returns a training, named after its folder; that of an arm has scores of train tasks on dev and test files."""
        most, is_tuning = self.study.scored, step == "tuning"
        parts = ("dev", "test") if step == "arms" else ()
        answers = tuple(Answering("plain", "train", part, most=most) for part in parts)
        name = str(folder.relative_to(self.folder))
        result = {"arms": SCORES, "tuning": LOSSES}.get(step, FINISHED)
        # A mixture of 8 experts has 0.4 GB of weights, and 1.1 GB with the optimizer's state.
        temporary = ("last", "best") if is_tuning else ("last",)
        return CostedRun(
            name,
            folder,
            commands,
            needs,
            result,
            temporary=temporary,
            step=step,
            work=(Work(kind, steps),),
            answers=answers,
        )

    def train(
        self, folder: Path, seed: int, steps: int, rate: float, flags: list[str], scored: bool = True
    ) -> list[str]:
        # A run that is not scored has its result at its only evaluation.
        period = -(-steps // self.study.evaluations) if scored else steps
        recipe = self.recipe.with_(total_steps=steps, eval_period=period, learning_rate=rate)
        return recipe.train(folder, *flags, *self.training_flags(seed), scored=scored)

    def training_flags(self, seed: int) -> list[str]:
        """Returns the flags of all trainings."""
        # --do_predict makes the answers, and no new text looks for its nearest task.
        most = self.study.scored
        shared = command(
            resume=True, seed=seed, select_by="answer_loss", no_text_vectors=True, eval_max_examples=most
        )
        return [*texts_of(self.study), *scoring_of(self.study), *shared]

    # ---- arms

    def arm(self, name: str, seed: int, rate: float | None = None) -> CostedRun:
        """The run of an arm. rate: of a tuning run; None: the chosen one."""
        arm, steps = ARMS[name], self.study.total_steps
        place = self.folder / ("runs" if rate is None else "tuning") / name
        folder = (place if rate is None else place / f"lr{number(rate)}") / f"seed{seed}"
        needs: list[Run] = [self.dense(seed)]
        if arm.has_vectors:
            needs.append(self.vectors(seed))
        counting = self.equal_flops(name, seed, folder, rate) if arm.same_flops else None
        needs += [counting] if counting else []

        def commands() -> list[list[str]]:
            # A dry run lists the command before anything is counted.
            is_known = counting and (counting.is_finished or not self.study.dry_run)
            own = counted_steps(counting) if is_known else steps
            return [self.command(name, seed, folder, rate, own)]

        step = "arms" if rate is None else "tuning"
        return self.trained(folder, commands, tuple(needs), step, arm.steps, steps)

    def command(self, name: str, seed: int, folder: Path, rate: float | None, steps: int) -> list[str]:
        """Returns the command that trains an arm."""
        arm = ARMS[name]
        hidden = self.study.hide_names if arm.hidden is None else arm.hidden
        flags = command(vanilla_checkpoint=self.dense(seed).folder, hide_task_names=hidden)
        flags = [*self.flags_of(arm, seed), *flags]
        return self.train(folder, seed, steps, rate or self.chosen_rate(name), flags, scored=rate is None)

    def flags_of(self, arm: Arm, seed: int) -> list[str]:
        study, steps = self.study, self.study.total_steps
        values = dict(
            clusters=study.clusters,
            seed=seed,
            vectors=self.vectors(seed).folder,
            gym=self.gym,
            every=max(1, steps // 12),
            first=max(1, steps // 6),
            last=steps // 2,
        )
        if "{base_lr}" in arm.flags:  # not known yet while other arms are tuned
            values["base_lr"] = number(self.chosen_rate(ONE))
        several = {
            "{mixture}": ["--num_experts", "3", "--init_eps", "1e-3"],
            # Temperatures fall from 2 to 0.3 in 80% of the steps.
            "{router}": command(router_lr=1e-2, minimum_tau=0.3, anneal_rate=2.37 / steps),
        }
        words = []
        for word in arm.flags.split():
            words += several.get(word) or [word.format(**values)]
        return words

    def equal_flops(self, name: str, seed: int, folder: Path, rate: float | None) -> Run:
        """The number of steps of an arm that cost the FLOPs of multitask."""
        steps = self.study.total_steps
        return counting_run(
            self.folder,
            folder,
            f"steps_of_{ONE}",
            lambda: self.command(name, seed, folder, rate, steps),
            (self.dense(seed), self.arm(ONE, seed, rate)),
        )

    # ---- learning rates

    def rates(self, name: str) -> tuple[float, ...]:
        """Returns the grid of an arm."""
        factor = LORA_FACTOR if ARMS[name].has_lora else 1
        return tuple(factor * rate for rate in self.study.rates)

    def tuning(self) -> list[CostedRun]:
        """Returns the runs that rates are chosen by, of arms without a chosen rate."""
        known, study = self.rates_file(), self.study
        names = [name for name in dict.fromkeys(map(rate_of, study.trained)) if name not in known]
        if len(study.rates) == 1:
            return []
        return [self.arm(name, study.tune_seed, rate) for name in names for rate in self.rates(name)]

    def dev_losses(self, name: str) -> dict[float, float]:
        """Returns {rate: mean dev answer loss over tasks} of the finished tuning runs of an arm."""
        runs = {rate: self.arm(name, self.study.tune_seed, rate) for rate in self.rates(name)}
        return {rate: last_dev_loss(run.folder) for rate, run in runs.items() if run.is_finished}

    def choose_rates(self) -> None:
        """Keeps the rate with the lowest dev answer loss of each arm that has none yet.

        Call it when all tuning runs have been tried: one that diverges does not count.
        """
        chosen = self.rates_file()
        for name in dict.fromkeys(run.folder.parent.parent.name for run in self.tuning()):
            if losses := self.dev_losses(name):
                chosen[name] = min(losses, key=losses.get)
        write_text(self.folder / RATES_FILE, json.dumps(chosen, indent=1))

    def rates_file(self) -> dict[str, float]:
        path = self.folder / RATES_FILE
        return load_json_object(path, "learning rates") if path.is_file() else {}

    def chosen_rate(self, name: str) -> float:
        """Returns the learning rate of an arm. Raises RuntimeError if none was chosen."""
        arm, own = ARMS[name], rate_of(name)
        rates, chosen = self.rates(own), self.rates_file()
        if len(rates) == 1 or (self.study.dry_run and own not in chosen):
            return arm.factor * rates[len(rates) // 2]
        if own not in chosen:
            raise RuntimeError(f"no learning rate of {own} was chosen: no tuning run of it is finished")
        return arm.factor * chosen[own]

    # ---- all

    def all(self) -> list[Run]:
        """Returns all runs, those that rates are chosen by first."""
        return [*self.tuning(), *self.arms()]

    def arms(self) -> list[Run]:
        return [self.arm(name, seed) for seed in self.study.seeds for name in self.study.trained]


def dev_loss(folder: Path) -> float:
    """Returns the mean over tasks of the answer loss (nats per token) of a run on dev files."""
    scores = pd.read_csv(folder / DEV_SCORES)
    return float(scores.groupby("task_prefix")["answer_loss"].mean().mean())


def last_dev_loss(folder: Path) -> float:
    """Returns the mean over tasks of the answer loss (nats per token) at the end of a training."""
    return float(pd.read_csv(folder / LOSSES)["dev_answer_loss"].iloc[-1])


def dev_losses(folder: Path) -> dict[str, float]:
    """Returns {arm: mean dev answer loss} over the seeds that all arms with finished runs have, by table of arms."""
    seeds = {name: {path.parent.parent.name for path in folder.glob(f"{name}/*/{SCORES}")} for name in ARMS}
    seeds = {name: own for name, own in seeds.items() if own}
    common = sorted(set.intersection(*seeds.values())) if seeds else []
    return {
        name: float(np.mean([dev_loss(folder / name / seed) for seed in common])) for name in seeds if common
    }


def best_dividing(losses: dict[str, float]) -> str | None:
    """Returns the arm with the lowest loss of those that divide the tasks by a rule of their own."""
    dividing = [name for name in losses if ARMS[name].divides]
    return min(dividing, key=losses.get, default=None)


def rows_of_rates(branches: Branches) -> Iterator[dict]:
    """Yields the rows of tuning.csv."""
    chosen = branches.rates_file()
    for name in dict.fromkeys(map(rate_of, branches.study.trained)):
        losses = branches.dev_losses(name)
        for rate, loss in losses.items():
            is_chosen = rate == chosen.get(name)
            edge = is_chosen and rate in (min(losses), max(losses))
            yield dict(
                arm=name, rate=f"{rate:g}", dev_answer_loss=f"{loss:.4f}", chosen=is_chosen, at_edge=edge
            )
