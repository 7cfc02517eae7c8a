"""The flags of the three parts of the study on real tasks."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from dataloader.errors import Problems, did_you_mean
from dataloader.jsonfile import load_json_object
from dataloader.list_tasks import tasks_named
from routing_moe.config.flags import AT_LEAST_1, NOT_NEGATIVE, POSITIVE, PROBABILITY, SEED, changed, group
from routing_moe.io.run_folder import load_run_settings
from routing_moe.studies.real_arms import ARMS, LABELS, ONE, RATES, TRAIN, arms_of, default_arms
from routing_moe.studies.real_starts import STARTS
from routing_moe.studies.recipes import SCORES, DataFlags
from routing_moe.studies.study import RUNNING, SETTINGS_FILE, Study

SHUFFLES = "shuffles of the answers whose gradients are subtracted from those of gradient; 0: none"
WHAT, TRAINING, TEXTS = group("what is compared"), group("training"), group("texts and scores")


@dataclass(frozen=True, kw_only=True)
class RealStudy(DataFlags, Study):
    """What all parts share."""

    # fmt: off
    program = "routing-moe study real-gym"
    groups = ("model and data", "what is compared", "training", "texts and scores", "running")

    english_bart: Path = RUNNING(Path("models/real_gym/english_bart"), "folder in which english_bart.sh makes the BART, unless --model is given", on_resume=True)
    denoising_steps: int = TRAINING(1600, "steps of its warm-up; 0: none", range=NOT_NEGATIVE)
    dry_run: bool = RUNNING(False, "only list the runs, and estimate their hours on this machine; a model that the study makes is made for it, without its warm-up", on_resume=True)
    seeds: tuple[int, ...] = WHAT((42, 43, 44, 45, 46), "seeds of each arm, of batches and random routes", range=SEED, on_resume=True)
    cased: bool = TEXTS(False, "--model distinguishes upper and lower case")
    max_input_length: int = TEXTS(128, "tokens of an input", range=AT_LEAST_1)
    max_output_length: int = TEXTS(64, "tokens of an answer", range=AT_LEAST_1)
    scored: int = TEXTS(50, "rows of each dev and test file that are scored", range=AT_LEAST_1)
    margin: float = TEXTS(0.05, "a task is learnable if the dev score of multitask, of unseen tasks that of direct, exceeds constant answers, chance and copied inputs by this", range=NOT_NEGATIVE, on_resume=True)
    # fmt: on

    def resolved(self) -> "RealStudy":
        name = "warm_bart" if self.denoising_steps else "bart"
        return replace(self, model=self.model or str(self.english_bart / name))

    @property
    def makes_model(self) -> bool:
        return Path(self.model).parent == self.english_bart

    def problems(self) -> list[str]:
        if not self.train_dir:
            return ["--train_dir is not given; give a gym folder, such as data/gym of build_gym.sh"]
        problems = Problems(super().problems())
        if not self.train_dir.is_dir():
            return [*problems, f"--train_dir {self.train_dir}: no such folder"]
        problems.of(tasks_named, ["all"], self.split_file, self.train_dir)
        return list(problems)

    def notes(self) -> list[str]:
        """Returns the flags that have no effect because an earlier call made the model with another value."""
        made = load_run_settings(self.english_bart / "warm_up") if self.makes_model else None
        if not made or not self.denoising_steps:
            return []
        own = dict(denoising_steps=self.denoising_steps, cased=self.cased)
        had = dict(denoising_steps=made["total_steps"], cased=not made["do_lowercase"])
        return changed(own, had, f"the model of {self.english_bart} (another one: --english_bart FOLDER)")

    @property
    def split_file(self) -> Path:
        return self.custom_tasks_splits or self.train_dir / "split.json"


@dataclass(frozen=True, kw_only=True)
class RealTrain(RealStudy):
    """Train tasks: what arms gain over one BART that continues the same dense run."""

    # fmt: off
    part: ClassVar[str] = TRAIN

    output_dir: Path = RUNNING(Path("models/real_gym/train"), "folder of this part", on_resume=True)
    arms: tuple[str, ...] = WHAT(default_arms(TRAIN), "arms, see above", metavar="NAME", on_resume=True)
    tune_seed: int = TRAINING(41, "seed of the runs that learning rates are chosen by, none of --seeds", range=SEED)
    dense_steps: int = TRAINING(480, "steps of the dense run that all arms continue", range=AT_LEAST_1)
    dense_rate: float = TRAINING(5e-4, "its learning rate", range=POSITIVE)
    total_steps: int = TRAINING(480, "steps of each arm after the dense run", range=AT_LEAST_1)
    rates: tuple[float, ...] = TRAINING(RATES, "learning rates; of several, each arm has the one with the lowest dev answer loss of a run of --tune_seed; of low-rank experts four times as high", range=POSITIVE)
    evaluations: int = TRAINING(4, "evaluations of an arm on dev rows, of which the one with the lowest answer loss is kept", range=AT_LEAST_1)
    clusters: str = TRAINING("clusters:8:4-20", "groups of gradient: a value of --task_routes")
    minus_shuffled: int = TRAINING(0, SHUFFLES, range=NOT_NEGATIVE)
    hide_names_dense: bool = TRAINING(False, "hide the task names in the dense run")
    hide_names: bool = TRAINING(False, "hide them in the arms, too")
    # fmt: on

    def problems(self) -> list[str]:
        known = arms_of(self.part)
        problems = [
            f"--arms: there is no arm {name!r}{did_you_mean(name, known)}; --help lists all"
            for name in self.arms
            if name not in known
        ]
        if ONE not in self.arms:
            problems.append(f"--arms lacks {ONE}, which the others are compared with")
        if self.tune_seed in self.seeds:
            problems.append(
                f"--seeds holds {self.tune_seed}, the seed that rates are tuned with (--tune_seed)"
            )
        if not self.clusters.startswith("clusters:"):
            problems.append(
                f"--clusters is {self.clusters!r}; give clusters:K, clusters:auto or clusters:K:MIN-MAX"
            )
        return problems or super().problems()

    @property
    def trained(self) -> tuple[str, ...]:
        """The arms, and before them those whose rate they have."""
        names = []
        for name in self.arms:
            names += [ARMS[name].rate_of] if ARMS[name].rate_of else []
            names.append(name)
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True, kw_only=True)
class RealLabels(RealTrain):
    """Contradictory labels: the same rows with kept and with permuted labels in tasks with opaque names."""

    # fmt: off
    part: ClassVar[str] = LABELS

    output_dir: Path = RUNNING(Path("models/real_gym/labels"), "folder of this part", on_resume=True)
    arms: tuple[str, ...] = WHAT(default_arms(LABELS), "arms, see above", metavar="NAME", on_resume=True)
    minus_shuffled: int = TRAINING(1, SHUFFLES, range=NOT_NEGATIVE)
    share: float = TRAINING(0.5, "share of the classification tasks that get a copy with permuted labels", range=PROBABILITY)
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class RealUnseen(RealStudy):
    """Unseen tasks: few-shot fine-tuning from arms of the first part, and from what is made of them."""

    # fmt: off
    output_dir: Path = RUNNING(Path("models/real_gym/unseen"), "folder of this part", on_resume=True)
    trained: Path = WHAT(Path("models/real_gym/train"), "folder of the first part, whose runs are the starts")
    best: str | None = WHAT(None, "arm of the first part whose experts are averaged in best_merged (default: of those that divide the tasks, the one with the lowest dev answer loss at the first call)", metavar="NAME")
    starts: tuple[str, ...] = WHAT((), "starts, see above (default: all whose runs are there)", metavar="NAME", on_resume=True)
    sections: tuple[str, ...] = WHAT(("test", "dev"), "sections of the split whose tasks are unseen")
    samples: tuple[str, ...] = WHAT(("100", "13", "21"), "samples of each task")
    more_steps: int = TRAINING(50, "multi-task steps of multitask_more after those of multitask", range=AT_LEAST_1)
    few_shot_steps: int = TRAINING(60, "steps of fine-tuning", range=AT_LEAST_1)
    evaluations: int = TRAINING(3, "evaluations on dev rows during these steps, of which the best is kept", range=AT_LEAST_1)
    few_shot_rates: tuple[float, ...] = TRAINING((1e-4, 3e-4), "learning rates of fine-tuning, chosen by dev answer loss", range=POSITIVE)
    # fmt: on

    def problems(self) -> list[str]:
        problems = Problems(super().problems())
        for flag, names, known in (
            ("starts", self.starts, STARTS),
            ("best", (self.best,) if self.best else (), arms_of(TRAIN)),
            ("sections", self.sections, ("dev", "test")),
        ):
            problems += [
                f"--{flag} {name}: not one of {', '.join(known)}{did_you_mean(name, known)}"
                for name in names
                if name not in known
            ]
        saved = self.trained / SETTINGS_FILE
        values = problems.of(load_json_object, saved, "the settings of a study") if saved.is_file() else None
        if not saved.is_file() or (values is not None and ("dense_steps" not in values or "share" in values)):
            problems.append(f"--trained {self.trained}: is no folder of real_gym_study.sh train")
        elif values and (lacking := [seed for seed in self.seeds if not self.has_seed(seed)]):
            problems.append(f"--seeds {lacking[0]}: {self.trained} has no finished run of multitask with it")
        return list(problems)

    def has_seed(self, seed: int) -> bool:
        return (self.trained / f"runs/{ONE}/seed{seed}" / SCORES).is_file()
