"""The flags of the commands that compute task vectors, saved with each folder of vectors.

Each method adds its own, and defines the data (`source`), the model (`model_files`) and the object that
computes vectors (`extractor`, which alone imports torch).
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from dataloader.encoding import TextFormat
from dataloader.errors import Problems, problem_context
from dataloader.gym import Gym
from routing_moe.checkpoints.find import SavedBart, SavedMixture, checksums, find_model
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.config.choices import POOLINGS, PRECISIONS
from routing_moe.config.flags import (
    AT_LEAST_1,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_OR_INFINITE,
    PROBABILITY,
    REQUIRED,
    SEED,
    Command,
    flag_problems,
    flags_of,
    group,
)
from routing_moe.config.shared import BART_BASE, Recipe, position_problems, recipe_of, trained_texts
from routing_moe.io.precision import precision_problems
from routing_moe.model.task_vectors import NOTHING, what_is_seen
from task.task_emb.sources import EACH, TrainFiles

OUTPUT = group("tasks and output")
DATA = group("data and model")
TEXTS = group("texts")
STATES = group("states")
TRAINING = group("training on the task")

PARTS = ("weight", "unit", "tensor", "layer")  # what one dimension of a Fisher vector is averaged over
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


def recipe_flag(recipe: Mapping[str, Any]) -> Any:
    """Returns the field --recipe of a method with this published recipe."""
    values = {name: value for name, value in recipe.items() if name not in PUBLISHED_TEXTS}
    flags = ", ".join(
        ["--task_names, all examples", *(f"--{name} {value}" for name, value in values.items())]
    )
    return DATA(None, f"published: the settings of the published code, for all flags that are not given: {flags} (default: the defaults in this help)", choices=(PUBLISHED,), on_resume=True)  # fmt: skip


def pooling_flag() -> Any:
    return STATES(
        "mean", "pooling of an input's states: mean over its tokens, or the state at <s>", choices=POOLINGS
    )


# fmt: off
@dataclass(frozen=True, kw_only=True)
class VectorSettings(Command, ABC):
    """The flags of all methods.

    on_resume: what may differ when a folder is continued, as it changes no vector. Data may differ, too: the
    checksum of what a vector was made of is saved with it.
    """

    method: ClassVar[str]

    output_dir: str = OUTPUT(REQUIRED, "folder of the vectors; finished vectors are kept", on_resume=True)
    tasks: tuple[str, ...] | None = OUTPUT(None, "names of tasks, and sections of the split such as train (default: all tasks of the split, or without a split all known tasks)", metavar="TASK", on_resume=True)
    train_dir: str | None = None
    custom_tasks_splits: str | None = OUTPUT(None, "JSON with task lists train, dev, test (default: split.json in --train_dir, if it exists)", on_resume=True)
    num_workers: int = OUTPUT(1, "number of processes that compute tasks in parallel, distributed over the GPUs; on CPUs results are bit-identical for equal OMP_NUM_THREADS; 1: in this process", range=AT_LEAST_1, on_resume=True)
    quiet: bool = OUTPUT(False, "no progress bar", on_resume=True)
# fmt: on

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
        """Returns {file: SHA-256} of the model, {} for methods without a model. Raises InputError."""
        return {}

    def problems(self) -> list[str]:
        """Returns errors: settings out of range, and errors specific to the method."""
        return flag_problems(self)

    def resolved(self) -> "VectorSettings":
        """Returns the settings with the method's defaults for those that are None."""
        return self

    @abstractmethod
    def extractor(self):
        """An object that computes vectors: its `vector_of(task)` returns an array (D,). Imports torch."""


# fmt: off
@dataclass(frozen=True, kw_only=True)
class GymSettings(VectorSettings):
    """Settings of methods that read train files with a BART."""

    usage = "--train_dir GYM --output_dir FOLDER [flags, see --help]"
    groups = ("tasks and output", "data and model")
    reads_answers: ClassVar[bool] = True
    takes_mixtures: ClassVar[bool] = False
    # Defaults of flags under --recipe published.
    PUBLISHED_RECIPE: ClassVar[dict] = {}

    train_dir: str = DATA(REQUIRED, "gym folder; only train files are read", on_resume=True)
    recipe: str | None = recipe_flag({})
    model: str = DATA(BART_BASE, "BART: a hub name, a saved folder, or a run with one expert (for text and gradient vectors also of a mixture)", is_path=True)
    tokenizer: str | None = DATA(None, "hub name or folder of the tokenizer (default: that of --model)", is_path=True)
    samples: str = DATA("first", "train files to read: first (sample), all (samples), or a seed such as 100. each: one vector per sample from its own rows, with the name of the sample such as boolq_16_100; the task gets that of its first sample. It is for few-shot fine-tuning, which reads the vector of each sample. A vector is computed from labelled rows (text vectors: unlabelled inputs) of one sample or, with all, of all samples; scores of unseen tasks are not zero-shot if the rows are labelled")
    max_examples: int = DATA(256, "maximum number of examples per task, evenly spaced over its train files; vectors are most comparable with equal numbers", range=AT_LEAST_1)
    skip_malformed: bool = DATA(False, "skip malformed lines of task files instead of stopping", on_resume=True)
    max_input_length: int = TEXTS(512, "maximum tokens of an input, including special tokens")
    max_output_length: int = TEXTS(64, "maximum tokens of an output, including special tokens")
    do_lowercase: bool = TEXTS(False, "lowercase texts")
    append_another_bos: bool = TEXTS(False, "put a second <s> before texts")
    task_names: bool = TEXTS(False, "put the task's name before each input, as in training: ' [task] input' (default: inputs without names)", negatable=True)
    max_tokens_per_micro_batch: int = TEXTS(16384, "maximum padded tokens per micro-batch; limits the memory of each process of --num_workers; 0: no limit", range=NOT_NEGATIVE, on_resume=True)  # only changes the rounding of sums
# fmt: on

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
        with problem_context("--model "):
            files = self.found_model().checksums()
        if self.tokenizer:
            with problem_context("--tokenizer "):
                of_tokenizer = checksums([], self.tokenizer)
            files |= {f"tokenizer's {name}": sha for name, sha in of_tokenizer.items()}
        return files

    def with_texts_of_model(self, given: Collection[str]) -> "GymSettings":
        """Returns the settings with texts as the model was trained to read them. given: flags that stay."""
        found = Problems().of(self.found_model)  # `problems` reports them
        config = found and Problems().of(lambda: found.config)
        texts = trained_texts(config, given) if config else {}
        if "task_names" in given:
            texts.pop("hide_task_names", None)
        return replace(self, **{name: texts[name] for name in texts.keys() & flags_of(self).keys()})

    def found_model(self) -> SavedBart | SavedMixture:
        """Returns the model, found on disk but not loaded. Raises InputError."""
        return find_model(self.model, name_flag="model")

    def problems(self) -> list[str]:
        """Returns errors in ranges and lengths, and a model or tokenizer that cannot be used."""
        problems = Problems(super().problems())
        problems.of(lambda: self.text_format)
        found = problems.of(self.found_model, flag="model")
        config = None if problems else problems.of(lambda: found.config, flag="model")
        if config is None:
            return list(problems)
        if config.num_experts > 1 and not self.takes_mixtures:
            problems.append(
                f"--model {self.model} is a mixture of {config.num_experts} experts; {self.method} vectors "
                "need a plain BART: a hub name, a saved folder or a run with one expert"
            )
        lengths = ("max_input_length", *(["max_output_length"] if self.reads_answers else []))
        problems += position_problems(self, config.max_position_embeddings, self.model, lengths)
        flag = "tokenizer" if self.tokenizer else "model"
        problems.of(load_tokenizer, self.tokenizer_place(found), config.vocab_size, flag=flag)
        return list(problems)

    def tokenizer_place(self, found: SavedBart | SavedMixture) -> str:
        """Returns the folder or hub name of the tokenizer: `--tokenizer`, by default that of the model."""
        return self.tokenizer or str(found.place)

    @property
    def text_format(self) -> TextFormat:
        """How texts are tokenized. Raises InputError for a length that is too short for any text."""
        return TextFormat.of(self)


# fmt: off
@dataclass(frozen=True, kw_only=True)
class TrainingSettings(GymSettings):
    """Settings of methods that train on each task first."""

    learning_rate: float = TRAINING(3e-5, "peak learning rate, which decays to 0; 0: weights do not change", range=NOT_NEGATIVE)
    total_steps: int = TRAINING(100, "optimizer steps", range=AT_LEAST_1)
    train_batch_size: int = TRAINING(8, "examples per step", range=AT_LEAST_1)
    warmup_ratio: float = TRAINING(0.06, "fraction of the steps for linear warm-up", range=PROBABILITY)
    weight_decay: float = TRAINING(0.01, "decoupled weight decay of matrices", range=NOT_NEGATIVE)
    adam_epsilon: float = TRAINING(1e-8, "AdamW's epsilon", range=POSITIVE)
    max_grad_norm: float = TRAINING(0.1, "clip the norm of the gradient of the summed loss; inf: no clipping", range=POSITIVE_OR_INFINITE)
    mixed_precision: str = TRAINING("no", "precision of matrix products in training; weights stay float32", choices=PRECISIONS)
    seed: int = TRAINING(42, "seed of batches, dropout and adapters, the same for all tasks", range=SEED)
# fmt: on

    def problems(self) -> list[str]:
        return super().problems() + precision_problems(self)

    @property
    def of_training(self) -> Recipe:
        return recipe_of(self, warmup_steps=int(self.total_steps * self.warmup_ratio))
