"""The runs of the third part of the study on real tasks: zero-shot and few-shot answers to unseen tasks."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object
from dataloader.task_splits import Split, load_split
from routing_moe.checkpoints.average import AVERAGED_FILE
from routing_moe.studies.costed_runs import Answering, CostedRun, Work
from routing_moe.studies.real_arms import ONE
from routing_moe.studies.real_runs import (
    Branches,
    best_dividing,
    dev_losses,
    english_bart_run,
    scoring_of,
    texts_of,
)
from routing_moe.studies.real_settings import RealTrain, RealUnseen
from routing_moe.studies.real_starts import BEST, STARTS
from routing_moe.studies.recipes import SCORES, UNSEEN_SCORES, TrainingRecipe, command, given_of
from routing_moe.studies.runs import Run
from routing_moe.studies.study import SETTINGS_FILE

SUMMARY = "summary.csv"
BEST_FILE = "best_arm"  # the arm of best_merged, which later calls keep


@dataclass(frozen=True)
class UnseenRuns:
    """The runs that answer unseen tasks, and what they start from."""

    study: RealUnseen

    @cached_property
    def trained(self) -> Branches:
        """The runs of the first part."""
        folder = self.study.trained
        values = load_json_object(folder / SETTINGS_FILE, "the settings of a study")
        own = dict(
            output_dir=folder, custom_tasks_splits=self.study.custom_tasks_splits, seeds=self.study.seeds
        )
        own |= given_of(self.study, ("train_dir", "model", "mixed_precision"))
        kept = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return Branches(RealTrain(**kept | own))

    @property
    def folder(self) -> Path:
        return self.study.output_dir

    @property
    def gym(self) -> Path:
        return self.study.train_dir

    @cached_property
    def recipe(self) -> TrainingRecipe:
        return TrainingRecipe.chosen(self.study).with_(gym=self.gym, split=self.study.split_file)

    @cached_property
    def split(self) -> Split:
        """The unseen tasks of all sections as those of "test", with the train tasks."""
        split = load_split(self.study.split_file)
        unseen = [task for section in self.study.sections for task in split.section(section)]
        unseen = [task for task in unseen if task not in split.train]
        return replace(split, dev=(), test=tuple(dict.fromkeys(unseen)))

    @property
    def split_file(self) -> Path:
        return self.folder / "split.json"

    def before(self) -> list[Run]:
        """Writes the split and the arm of best_merged; returns the run that makes the model, if the study does.

        Raises InputError if --starts names multitask_mean and this is a mean over other seeds.
        """
        tasks = {name: self.split.section(name) for name in ("train", "dev", "test")}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.split_file, json.dumps(tasks))
        if "best_merged" in self.starts and self.best:
            write_text(self.folder / BEST_FILE, self.best)
        if "multitask_mean" in self.study.starts and (seeds := self.other_seeds_of_mean()):
            raise InputError(
                f"--seeds {' '.join(map(str, self.study.seeds))}: multitask_mean in {self.folder} is the mean of "
                f"{' '.join(seeds)}; give these seeds, --starts without it, or another --output_dir"
            )
        return [english_bart_run(self.study)] if self.study.makes_model else []

    # ---- starts

    def arm_of(self, name: str) -> str | None:
        arm = STARTS[name].arm
        return self.best if arm == BEST else arm

    @cached_property
    def best(self) -> str | None:
        """The arm of --best, by default the best that divides the tasks at the first call; None if there is none."""
        kept = self.folder / BEST_FILE
        if self.study.best or not kept.is_file():
            return self.study.best or best_dividing(dev_losses(self.trained.folder / "runs"))
        return kept.read_text().strip()

    def start(self, name: str, seed: int) -> tuple[str, tuple[Run, ...]]:
        """Returns the checkpoint of a start, and the runs that make it."""
        start, arm = STARTS[name], self.arm_of(name)
        if start.arm is None:
            return "None", ()
        run = self.trained.arm(arm, seed)
        if start.made == "more":
            run = self.continued(seed)
        elif start.made == "mean":
            run = self.mean()
        return str(run.folder), (run,) if start.made else ()

    def continued(self, seed: int) -> Run:
        """The run of multitask with further steps."""
        folder, steps = self.folder / "starts/multitask_more" / f"seed{seed}", self.study.more_steps
        source, trained = self.trained.arm(ONE, seed), self.trained
        flags = command(
            num_experts=1, vanilla_checkpoint=source.folder, hide_task_names=trained.study.hide_names
        )

        def commands() -> list[list[str]]:
            return [trained.train(folder, seed, steps, trained.chosen_rate(ONE), flags)]

        name = f"starts/multitask_more/seed{seed}"
        return Run(name, folder, commands, result=SCORES, temporary=("last",))

    def mean(self) -> Run:
        """The mean of the weights of multitask over all seeds."""
        folder = self.folder / "starts/multitask_mean"
        runs = tuple(self.trained.arm(ONE, seed).folder for seed in self.study.seeds)
        averaging = command("routing_moe.cli.average", runs=runs, output_dir=folder)
        return Run("starts/multitask_mean", folder, lambda: [averaging], result="config.json")

    def other_seeds_of_mean(self) -> list[str]:
        """Returns the seeds of multitask_mean of an earlier call if they are not those of this one, else []."""
        path = self.mean().folder / AVERAGED_FILE
        if not path.is_file():
            return []
        runs = load_json_object(path, "what a mean was made of")["made_of"]
        had = sorted(Path(run).name.removeprefix("seed") for run in runs)
        return had if set(had) != set(map(str, self.study.seeds)) else []

    def is_there(self, name: str) -> bool:
        """Returns whether all runs of the first part that a start needs are finished."""
        if STARTS[name].arm is None:
            return True
        arm = self.arm_of(name)
        return arm is not None and all(self.trained.arm(arm, seed).is_finished for seed in self.study.seeds)

    @property
    def starts(self) -> tuple[str, ...]:
        if self.study.starts:
            return self.study.starts
        left_out = {"multitask_mean"} if self.other_seeds_of_mean() else set()
        return tuple(name for name in STARTS if name not in left_out and self.is_there(name))

    # ---- scores

    def baselines(self) -> Run:
        """Scores of the dense run, whose files have constant answers, chance and copying."""
        return self.scored(self.folder / "baselines", self.trained.dense(self.study.seeds[0]).folder)

    def zero_shot(self, name: str, seed: int) -> Run:
        """Scores of a start without fine-tuning.

        With learned routes, a task has that of the train task with the most similar unlabelled inputs.
        """
        checkpoint, needs = self.start(name, seed)
        return self.scored(self.folder / "zero_shot" / name / f"seed{seed}", Path(checkpoint), needs)

    def scored(self, folder: Path, run: Path, needs: tuple[Run, ...] = ()) -> Run:
        """The scores of a run on the unseen tasks."""
        data = command(checkpoint=run / "best", train_dir=self.gym, custom_tasks_splits=self.split_file)
        flags = (*data, *texts_of(self.study), *scoring_of(self.study))
        scoring = self.recipe.predict_unseen(folder, *flags)
        return Run(str(folder.relative_to(self.folder)), folder, lambda: [scoring], needs, UNSEEN_SCORES)

    def finetuned(self, name: str, seed: int) -> CostedRun:
        """The fine-tuning on all unseen tasks from a start."""
        study, start, steps = self.study, STARTS[name], self.study.few_shot_steps
        folder = self.folder / "few_shot" / name / f"seed{seed}"
        checkpoint, needs = self.start(name, seed)
        # Logits of routes need other rates than weights: `finetuning` knows them.
        rates = None if "logits" in start.flags else study.few_shot_rates

        def commands() -> list[list[str]]:
            tuning = command(
                *("routing_moe.studies.finetuning", start.kind, "test", checkpoint, name),
                **dict(results_dir=folder, model=study.model, train_dir=self.gym, seed=seed),
                **dict(custom_tasks_splits=self.split_file, mixed_precision=self.recipe.mixed_precision),
                **dict(samples=study.samples, total_steps=steps, eval_period=-(-steps // study.evaluations)),
                **dict(bsz_list=(8,), warmup_steps=max(1, steps // 10), select_by="answer_loss"),
                learning_rate_list=rates,
                further=(*start.flags.split(), *texts_of(study), *scoring_of(study, "generate")),
            )
            return [tuning]

        runs, most = len(self.split.test) * len(study.samples) * len(study.few_shot_rates), study.scored
        times = len(study.few_shot_rates)
        answers = (
            Answering("plain", "test", "dev", study.samples, times=study.evaluations * times),
            Answering("plain", "test", "test", study.samples, most, times),
        )
        return CostedRun(
            str(folder.relative_to(self.folder)), folder, commands, needs, SUMMARY, step="few_shot",
            work=(Work("plain", runs * steps, (8,), "test"),), answers=answers, partial=True,
        )  # fmt: skip

    def training_flags(self, seed: int) -> list[str]:
        return self.trained.training_flags(seed)

    def tuning(self) -> list[Run]:
        return []

    def choose_rates(self) -> None:
        """Fine-tuning chooses its rates for each sample."""

    def arms(self) -> list[Run]:
        runs: list[Run] = [self.baselines()]
        for seed in self.study.seeds:
            # Fine-tuning first: it keeps the text vectors by which zero-shot scores find routes, too.
            runs += [self.finetuned(name, seed) for name in self.starts]
            runs += [self.zero_shot(name, seed) for name in self.starts if STARTS[name].is_run]
        return runs

    def all(self) -> list[Run]:
        return self.arms()
