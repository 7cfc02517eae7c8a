"""The settings of a folder of task vectors, frozen and saved with it. Each method adds its own, and defines
the data (`source`), the model (`model_files`) and the object that computes vectors (`extractor`)."""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from dataloader.encoding import TextFormat
from dataloader.errors import Faults, InputError
from dataloader.gym import Gym
from routing_moe.checkpoints.find import SavedBart, SavedMixture, checksums, find_saved
from routing_moe.checkpoints.start import load_tokenizer
from routing_moe.config.flags import (
    AT_LEAST_1,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_OR_INFINITE,
    PROBABILITY,
    SEED,
    Flag,
    Range,
    value_faults,
)
from routing_moe.config.shared import Recipe
from routing_moe.io.precision import precision_faults
from routing_moe.model.saved_config import load_bart_config
from routing_moe.model.task_vectors import NOTHING, what_is_seen
from routing_moe.training.start_checks import position_faults
from task.task_emb.sources import EACH, TrainFiles

PUBLISHED = "published"
# Shared by all published recipes: " [task] input", and all examples of the files that are read.
PUBLISHED_TEXTS = {"task_names": True, "max_examples": 10**10}
# The published scripts read a task's first sample and warm up for 150 steps.
PUBLISHED_TRAINING = PUBLISHED_TEXTS | {
    "samples": "first",
    "total_steps": 2500,
    "learning_rate": 3e-5,
    "warmup_ratio": 0.06,
    "train_batch_size": 8,
    "weight_decay": 0.01,
    "max_grad_norm": 0.1,
}


def number(default: float | None, range: Range) -> Any:
    """A field for a number with a range, which `value_faults` checks; its flag is in `arguments.py`."""
    return dataclasses.field(default=default, metadata={"flag": Flag("", "", range=range)})


@dataclass(frozen=True, kw_only=True)
class VectorSettings(ABC):
    """Settings of all methods. tasks: names and sections of the split; None: all of it, or of the gym."""

    method: ClassVar[str]
    # Settings that are paths: they may differ when a folder is continued, because checksums are compared.
    PATHS: ClassVar[tuple[str, ...]] = ()

    output_dir: str
    tasks: tuple[str, ...] | None = None
    train_dir: str | None = None
    custom_tasks_splits: str | None = None
    num_workers: int = number(1, AT_LEAST_1)
    quiet: bool = False

    @property
    def seen(self) -> str:
        """What a vector has seen of its task, one of `routing_moe.model.task_vectors.SEEN`."""
        return NOTHING

    @property
    def of_each_sample(self) -> bool:
        """Whether vectors are computed per sample."""
        return False

    @abstractmethod
    def source(self):
        """The data of the tasks: one of the classes in `sources.py`. Raises InputError."""

    def model_files(self) -> dict[str, str]:
        """{file: SHA-256} of the model, {} for methods without a model. Raises InputError."""
        return {}

    def faults(self) -> list[str]:
        """Errors: settings out of range, and errors that are specific to the method."""
        return value_faults(self)

    def resolved(self) -> "VectorSettings":
        """The settings with the method's defaults for those that are None."""
        return self

    @abstractmethod
    def extractor(self):
        """An object that computes vectors: its `vector_of(task)` returns an array (D,)."""

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class GymSettings(VectorSettings):
    """Settings of methods that read train files with a BART."""

    PATHS: ClassVar[tuple[str, ...]] = ("model", "tokenizer")
    reads_answers: ClassVar[bool] = True
    takes_mixtures: ClassVar[bool] = False
    # Defaults of flags under --recipe published.
    PUBLISHED_RECIPE: ClassVar[dict] = {}

    recipe: str | None = None
    model: str = "facebook/bart-base"
    tokenizer: str | None = None
    samples: str = "first"
    max_examples: int = number(256, AT_LEAST_1)
    skip_malformed: bool = False
    max_input_length: int = 512
    max_output_length: int = 64
    do_lowercase: bool = False
    append_another_bos: bool = False
    task_names: bool = False
    max_tokens_per_micro_batch: int = number(16384, NOT_NEGATIVE)

    @property
    def seen(self) -> str:
        return what_is_seen(self.samples, self.reads_answers)

    @property
    def of_each_sample(self) -> bool:
        return self.samples == EACH

    def source(self) -> TrainFiles:
        gym = Gym(self.train_dir, self.skip_malformed)
        return TrainFiles(gym, self.samples, self.max_examples, self.reads_answers)

    def model_files(self) -> dict[str, str]:
        files = self.found_model().checksums()
        if self.tokenizer:
            files |= {f"tokenizer's {name}": sha for name, sha in checksums([], self.tokenizer).items()}
        return files

    def found_model(self) -> SavedBart | SavedMixture:
        """The model, found on disk but not loaded. Raises InputError."""
        found = find_saved(self.model, name_flag="model")
        if isinstance(found, SavedMixture) and found.config.num_experts > 1 and not self.takes_mixtures:
            raise InputError(
                f"{self.model} is a mixture of {found.config.num_experts} experts; {self.method} vectors "
                "need a plain BART: a hub name, a saved folder or a run with one expert"
            )
        return found

    def faults(self) -> list[str]:
        """Errors in ranges and lengths, and a model or tokenizer that cannot be used."""
        faults = Faults(super().faults())
        faults.of(lambda: self.text_format)
        if found := faults.of(self.found_model, flag="model"):
            config = found.config if isinstance(found, SavedMixture) else None
            config = config or faults.of(load_bart_config, found.source, flag="model")
            if config is not None:
                lengths = ("max_input_length", *(["max_output_length"] if self.reads_answers else []))
                faults += position_faults(self, config.max_position_embeddings, self.model, lengths)
                flag = "tokenizer" if self.tokenizer else "model"
                faults.of(load_tokenizer, self.tokenizer_place(found), config.vocab_size, flag=flag)
        return list(faults)

    def tokenizer_place(self, found: SavedBart | SavedMixture) -> str:
        """The folder or hub name of the tokenizer: `--tokenizer`, by default that of the model."""
        of_model = found.checkpoint if isinstance(found, SavedMixture) else found.source
        return self.tokenizer or str(of_model)

    @property
    def text_format(self) -> TextFormat:
        """How texts are tokenized. Raises InputError for a length that is too short for any text."""
        return TextFormat.of(self)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(GymSettings):
    """Settings of methods that train on each task first."""

    learning_rate: float = number(3e-5, NOT_NEGATIVE)
    total_steps: int = number(100, AT_LEAST_1)
    train_batch_size: int = number(8, AT_LEAST_1)
    warmup_ratio: float = number(0.06, PROBABILITY)
    weight_decay: float = number(0.01, NOT_NEGATIVE)
    adam_epsilon: float = number(1e-8, POSITIVE)
    max_grad_norm: float = number(0.1, POSITIVE_OR_INFINITE)
    mixed_precision: str = "no"
    seed: int = number(42, SEED)

    def faults(self) -> list[str]:
        return super().faults() + precision_faults(self)

    @property
    def of_training(self) -> Recipe:
        shared = {field.name for field in dataclasses.fields(Recipe)} & {
            field.name for field in dataclasses.fields(self)
        }
        return Recipe(
            warmup_steps=int(self.total_steps * self.warmup_ratio),
            **{name: getattr(self, name) for name in shared},
        )
