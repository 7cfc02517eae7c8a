"""Which model, data and hyperparameters go together, and the commands that train and merge with them.

Without data of one's own, experiments run on an embedded gym with a small BART and hyperparameters for it; with a gym, a
split, task vectors or a model, on facebook/bart-base with the published hyperparameters.
"""

import os
import re
import secrets
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from dataloader.jsonfile import load_json_object
from routing_moe.config.choices import PRECISIONS
from routing_moe.config.flags import AT_LEAST_1, NOT_NEGATIVE, Range, flags_of, group
from routing_moe.config.train import TrainSettings
from routing_moe.studies.devices import device, precision
from routing_moe.studies.runs import Run
from routing_moe.studies.study import Script, parse_further

DATA = group("model and data")
HYPERPARAMETERS = group("hyperparameters; by default those that go with the model")

BART_BASE, BART_LARGE = "facebook/bart-base", "facebook/bart-large"
SKILL, CONFLICT = "skill", "conflict"  # the embedded gyms
GYMS = {SKILL: Path("data/skill_gym"), CONFLICT: Path("data/conflict_gym")}
CONFLICT_BARTS = Path("data/conflict_gym_bart")
CONFLICT_WIDTHS = (16, 32)
TRAIN = "routing_moe.cli.train"
SCORES = "best/eval-test-performance.csv"  # the last file that a training writes
CLUSTERS = Range(
    lambda text: re.fullmatch(r"(auto|[1-9]\d*)(:\d+-\d+)?", text),
    "auto or a whole number of at least 1, perhaps with sizes as 8:4-20",
)
UNSEEN_SCORES = "best/eval-test_tasks-test-performance.csv"  # the last of a prediction of unseen tasks


@dataclass(frozen=True, kw_only=True)
class DataFlags(Script):
    """What is trained on what."""

    # fmt: off
    variables: ClassVar[Mapping[str, str]] = {"train_dir": "DATA_DIR", "custom_tasks_splits": "SPLIT"}

    model: str | None = DATA(None, "plain BART, a hub name or a folder, which the hyperparameters go with (default: that of a checkpoint to start from; else facebook/bart-base if a gym, a split or task vectors are given; else the embedded BART)")
    train_dir: Path | None = DATA(None, "gym folder (default: the embedded gym)")
    custom_tasks_splits: Path | None = DATA(None, "task split JSON (default: split.json of the gym)")
    taskvecs: Path | None = DATA(None, "folder of task vectors (default: random vectors)")
    embedded_gym: str = DATA(SKILL, "the embedded gym, and its BART; conflict: an untrained BART of width 16, and hyperparameters for such gyms, also with another --model or --train_dir", choices=tuple(GYMS))
    mixed_precision: str | None = DATA(None, "precision of matrix products (default: bf16 on a GPU that supports it, else no)", choices=PRECISIONS)
    # fmt: on

    @property
    def has_own_data(self) -> bool:
        return bool(self.train_dir or self.custom_tasks_splits or self.taskvecs)


@dataclass(frozen=True, kw_only=True)
class TrainingFlags(DataFlags):
    """The hyperparameters that depend on the model."""

    # fmt: off
    takes_further, further_flags_of = True, TrainSettings

    total_steps: int | None = HYPERPARAMETERS(None, "optimizer steps (30000; of an embedded BART 1000)", range=AT_LEAST_1)
    eval_period: int | None = HYPERPARAMETERS(None, "steps between evaluations (750; 500)", range=AT_LEAST_1)
    learning_rate: float | None = HYPERPARAMETERS(None, "learning rate of BART (1e-5; skill 1e-3, conflict 3e-3), or of low-rank experts (1e-3; 1e-2)", range=NOT_NEGATIVE)
    router_lr: float | None = HYPERPARAMETERS(None, "learning rate of the router (1e-3; 1e-2)", range=NOT_NEGATIVE)
    task_model_lr: float | None = HYPERPARAMETERS(None, "learning rate of the task vectors (1e-2)", range=NOT_NEGATIVE)
    # fmt: on

    def as_words(self, flags: type[DataFlags], model: str) -> list[str]:
        """Returns those of the flags that are given, and the model, for another command."""
        return command(**{name: getattr(self, name) for name in flags_of(flags)} | {"model": model})


@dataclass(frozen=True)
class TrainingRecipe:
    """A model with its gym and hyperparameters. embedded: its gym, "" for a model that is not embedded."""

    model: str
    gym: Path
    split: Path | None
    taskvecs: Path | None
    embedded: str
    mixed_precision: str | None
    total_steps: int
    eval_period: int
    learning_rate: float | None  # None: the default, which depends on the kind of experts
    router_lr: float
    task_model_lr: float

    @classmethod
    def chosen(cls, flags: DataFlags, checkpoint: str | Path | None = None) -> "TrainingRecipe":
        """Returns the recipe of the flags. checkpoint: its base is the model, unless --model is given."""
        model = flags.model or (checkpoint and base_of(Path(checkpoint))) or default_model(flags)
        embedded = embedded_as(model, flags.embedded_gym)
        defaults = HYPERPARAMETERS_OF[embedded]
        return cls(
            model=model,
            gym=flags.train_dir or GYMS[embedded or SKILL],
            split=flags.custom_tasks_splits,
            taskvecs=flags.taskvecs,
            embedded=embedded,
            mixed_precision=precision(flags.mixed_precision),
            learning_rate=getattr(flags, "learning_rate", None),
            **defaults | given_of(flags, defaults),
        )

    def with_(self, **fields) -> "TrainingRecipe":
        return replace(self, **fields)

    def rate(self, expert_kind: str | None = None) -> float:
        """Returns the learning rate of experts of a kind (None: the default kind)."""
        default = LEARNING_RATES["lora" if expert_kind == "lora" else "layer"][self.embedded]
        return default if self.learning_rate is None else self.learning_rate

    @property
    def split_file(self) -> Path:
        return self.split or self.gym / "split.json"

    @property
    def texts(self) -> dict[str, int]:
        """Flags of the commands that read texts."""
        return TEXT_LENGTHS[self.embedded]

    @property
    def num_beams(self) -> int | None:
        return 1 if self.embedded else None

    @property
    def width(self) -> int | None:
        """The width of an embedded BART, for task vectors of the same."""
        return WIDTHS[self.embedded]

    def set_threads(self) -> None:
        """With such small matrices, a second thread barely helps, and slows down training on a busy machine."""
        if self.embedded:
            os.environ.setdefault("OMP_NUM_THREADS", "1")

    # ---- commands

    def train(
        self, folder: str | Path, *flags: str, from_checkpoint: bool = False, scored: bool = True
    ) -> list[str]:
        """Returns the command that trains in the folder and scores with the best checkpoint; flags win.

        from_checkpoint: start from a checkpoint in the folder instead of the model. scored: False: it only trains.
        """
        values = parse_further(TrainSettings, flags)
        start = {} if from_checkpoint else self.route_flags(values)
        rate = self.rate(values.get("expert_kind"))
        return command(
            TRAIN,
            **dict(do_train=True, do_predict=scored, train_dir=self.gym, custom_tasks_splits=self.split),
            **dict(output_dir=folder, learning_rate=rate, total_steps=self.total_steps),
            **dict(
                eval_period=self.eval_period, num_beams=self.num_beams, mixed_precision=self.mixed_precision
            ),
            **self.texts,
            **BATCHES[self.embedded],
            **start,
            further=flags,
        )

    def route_flags(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the flags of the start from a plain BART, and of learned routes or of the vectors that given routes are
        clusters of. values: of other flags.
        """
        start = dict(initialize_from_vanilla=True, model=self.model)
        if values.get("task_routes") and values.get("task_routes_as") != "start":
            return dict(start, taskvecs=self.taskvecs)
        fixed = ("avg_routing", "random_routing", "task_level_random_routing")
        if values.get("num_experts") == 1 or any(values.get(name) for name in fixed):
            return start
        has_table = values.get("router_nn_type") == "table"
        start |= dict(router_lr=self.router_lr, task_model_lr=self.task_model_lr, taskvecs=self.taskvecs)
        return (
            start
            | (ANNEALING if self.embedded else {})
            | ({} if self.taskvecs or has_table else dict(taskvecs_dim=self.width))
        )

    def predict_unseen(self, folder: str | Path, *flags: str) -> list[str]:
        return command(
            TRAIN,
            do_predict=True,
            predict_split="test",
            output_dir=folder,
            mixed_precision=self.mixed_precision,
            further=flags,
        )

    # ---- the embedded gym

    def embedded_run(self) -> tuple[Run, ...]:
        """Returns the run that writes the embedded gym and BARTs, if this recipe uses them."""
        if self.embedded == CONFLICT:
            return (conflict_gym_run(),)
        return (skill_gym_run(),) if self.gym == GYMS[SKILL] else ()

    @property
    def described(self) -> str:
        return f"model {self.model}" + (f", task vectors {self.taskvecs}" if self.taskvecs else "")

    def announced(self, title: str, steps: str, folder: str | Path, further: Iterable[str] = ()) -> str:
        """Returns two lines on what a command is about to do."""
        flags = " ".join(further)
        precision = f", precision {self.mixed_precision}" if self.mixed_precision else ""
        return (
            f"{title}; gym {self.gym}, split {self.split_file}\n"
            f"{steps}; on {device()}{precision}; output in {folder}" + (f"; flags: {flags}" if flags else "")
        )


# ---- what goes with which model: "": the published recipe

HYPERPARAMETERS_OF = {
    "": dict(total_steps=30000, eval_period=750, router_lr=1e-3, task_model_lr=1e-2),
    SKILL: dict(total_steps=1000, eval_period=500, router_lr=1e-2, task_model_lr=1e-2),
    CONFLICT: dict(total_steps=1000, eval_period=500, router_lr=1e-2, task_model_lr=1e-2),
}
LEARNING_RATES = {  # by kind of experts
    "layer": {"": 1e-5, SKILL: 1e-3, CONFLICT: 3e-3},
    "lora": {"": 1e-3, SKILL: 1e-2, CONFLICT: 1e-2},
}
TEXT_LENGTHS = {
    "": {},
    SKILL: dict(max_input_length=128, max_output_length=32),
    CONFLICT: dict(max_input_length=32, max_output_length=8),
}
BATCHES = {
    "": {},
    SKILL: {},
    CONFLICT: dict(train_batch_size=128, gradient_accumulation_steps=1, max_grad_norm=128),
}
WIDTHS = {"": None, SKILL: 64, CONFLICT: CONFLICT_WIDTHS[0]}
ANNEALING = dict(anneal_rate=0.003, minimum_tau=0.3)  # of an embedded BART


def tiny_bart() -> Path:
    """Returns the folder of the embedded tiny BART."""
    return in_package("task.skill_gym", "tiny_bart")


def in_package(package: str, name: str) -> Path:
    """Returns the path of a file or folder in a package, relative in a copy of the repository."""
    path = Path(*package.split("."), name)
    return path if path.exists() else Path(find_spec(package).origin).with_name(name)


def default_model(flags: DataFlags) -> str:
    if flags.embedded_gym == CONFLICT:
        return str(CONFLICT_BARTS / f"width{CONFLICT_WIDTHS[0]}")
    return BART_BASE if flags.has_own_data else str(tiny_bart())


def embedded_as(model: str, gym: str) -> str:
    """Returns the embedded gym that the hyperparameters of a model are for, or ""."""
    if gym == CONFLICT or str(CONFLICT_BARTS) in model:
        return CONFLICT
    return SKILL if is_tiny(model) else ""


def is_tiny(model: str) -> bool:
    return Path(model).exists() and Path(model).samefile(tiny_bart())


def base_of(folder: Path) -> str:
    """Returns the plain BART of a run, a checkpoint or a file of weights.

    It is the recorded one; where none is, as for runs of the published code, an embedded BART, bart-large or
    bart-base, by its sizes.
    """
    for saved_in in (folder, folder / "init", folder.parent, folder.parent / "init"):
        run, merge = (
            load_json_object(file, "a run") if file.is_file() else {}
            for file in (saved_in / "run.json", saved_in / "merge.json")
        )
        # run.json names a model that the run does not start from, unless it started from plain BART.
        saved = run if run.get("initialize_from_vanilla") else merge
        if saved.get("model"):
            return saved["model"]
    sizes = sizes_in(saved_config(folder))
    for bart in (tiny_bart(), *(CONFLICT_BARTS / f"width{width}" for width in CONFLICT_WIDTHS)):
        if sizes and sizes == sizes_in(saved_config(bart)):
            return str(bart)
    return BART_LARGE if sizes.get("d_model") == 1024 else BART_BASE


def saved_config(folder: Path) -> dict[str, Any]:
    """Returns the configuration of a run, a checkpoint or a file of weights; {} if there is none."""
    checkpoint = folder if folder.is_dir() else folder.parent  # of a file of weights
    configs = (
        [checkpoint / "config.json", *sorted(checkpoint.glob("*/config.json"))] if folder.exists() else []
    )
    return next((load_json_object(path, "a configuration") for path in configs if path.is_file()), {})


def sizes_in(config: Mapping[str, Any]) -> dict[str, int]:
    of_sides = (f"{side}_{size}" for side in ("encoder", "decoder") for size in ("layers", "ffn_dim"))
    names = ("vocab_size", "d_model", *of_sides)
    return {name: config[name] for name in names if name in config}


# ---- the embedded gyms


def skill_gym_run() -> Run:
    gym = GYMS[SKILL]
    return generated("task.skill_gym", [command("task.skill_gym.generate", output_dir=gym)], gym)


def conflict_gym_run() -> Run:
    gym = GYMS[CONFLICT]
    barts = [
        command("task.conflict_gym.bart", gym=gym, width=width, output_dir=CONFLICT_BARTS / f"width{width}")
        for width in CONFLICT_WIDTHS
    ]
    generate = command("task.conflict_gym.generate", output_dir=gym)
    return generated("task.conflict_gym", [generate, *barts], CONFLICT_BARTS, gym)


def generated(package: str, commands: list[list[str]], *folders: Path) -> Run:
    """Returns the run that writes an embedded gym once per version of its generator's code.

    folders: what it writes; the first has a file that tells the version.
    """

    def commands_of_version() -> list[list[str]]:
        if any(folders[0].glob("generator-*")):  # of another version
            for folder in filter(Path.exists, folders):  # which may have tasks of the user
                kept = folder.with_name(f"{folder.name}-old-{secrets.token_hex(4)}")
                folder.rename(kept)
                print(f"{folder} is of another version of its generator: written again, and kept as {kept}")
        return commands

    return Run(
        "gym", folders[0], commands_of_version, result=f"generator-{version_of(package):08x}", touched=True
    )


@cache  # asked for each run of a study
def version_of(package: str) -> int:
    """Returns a checksum of the package's code."""
    sources = sorted(Path(find_spec(package).origin).parent.glob("*.py"))
    return zlib.crc32(b"".join(path.read_bytes() for path in sources))


# ---- flags


def kind_of(flags: Iterable[str]) -> str | None:
    """Returns the kind of experts that flags of routing-moe train name."""
    return parse_further(TrainSettings, flags).get("expert_kind")


def words(*values: Any) -> list[str]:
    return [str(value) for value in values]


def number(value: float) -> str:
    """Returns 1e-05 as 1e-5, 300.0 as 300, with all digits."""
    return str(value).replace("e-0", "e-").removesuffix(".0")


def command(*arguments: Any, further: Iterable[Any] = (), **flags: Any) -> list[str]:
    """Returns the words of a command: arguments, flags by name, then further words, which win over flags.

    A flag with None or False is left out, one with True has no value, one with a tuple has several.
    """
    line = words(*arguments)
    for name, value in flags.items():
        if value is None or value is False:
            continue
        values = () if value is True else value if isinstance(value, tuple) else (value,)
        texts = [number(one) if isinstance(one, float) else str(one) for one in values]
        if len(texts) == 1 and (not texts[0] or texts[0].startswith("-")):
            line.append(f"--{name}={texts[0]}")
        else:
            line += [f"--{name}", *texts]
    return line + words(*further)


def given_of(flags: Any, names: Iterable[str]) -> dict[str, Any]:
    """Returns {name: value} of those of the names that the flags have a value for."""
    return {name: value for name in names if (value := getattr(flags, name, None)) is not None}
