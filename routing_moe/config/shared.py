"""Flags that several commands share, and the settings of an optimizer step."""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, make_dataclass, replace
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import ClassVar

from routing_moe.config.choices import LOWEST_LOSS, PRECISIONS, PROMPT_FORMATS, SCORINGS
from routing_moe.config.flags import (
    AT_LEAST_1,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_OR_INFINITE,
    PROBABILITY,
    Command,
    changed,
    group,
)
from routing_moe.config.measures import MEASURES, PERFORMANCE, needed
from routing_moe.config.plugins import PluginFlags
from routing_moe.io.logs import early_notes

TEXTS = group("texts and decoding")
OPTIMISATION = group("optimisation")
# What the published code does not have comes after its flags in the help.
MORE_TEXTS = group("additions: texts and decoding")
MORE_OPTIMISATION = group("additions: memory, time and precision")
BART_BASE = "facebook/bart-base"


# fmt: off
@dataclass(frozen=True, kw_only=True)
class TextFlags(Command):
    """How texts are tokenized and answers are made."""

    max_input_length: int = TEXTS(512, "maximum tokens of an input, including special tokens", inherited=True, compared_as="scoring")
    max_output_length: int = TEXTS(64, "maximum tokens of an output, including special tokens", inherited=True, compared_as="scoring")
    do_lowercase: bool = TEXTS(False, "lowercase inputs and outputs, and the gold answers", negatable=True, inherited=True, compared_as="scoring")
    append_another_bos: bool = TEXTS(False, "put a second <s> before inputs and outputs", negatable=True, inherited=True, compared_as="scoring")
    hide_task_names: bool = MORE_TEXTS(False, "begin every input with [task] instead of the task's name, so that only the route, if any, identifies the task", negatable=True, inherited=True)
    no_prefix: bool = MORE_TEXTS(False, "begin no input with [task], as models that were trained elsewhere read them", negatable=True, inherited=True)
    prompt_format: str = MORE_TEXTS("crossfit", "how a decoder-only model reads an input. crossfit: \" [task] input\"; chat: as the user's message in the tokenizer's chat template", choices=PROMPT_FORMATS, inherited=True, compared_as="scoring")
    system: str | None = MORE_TEXTS(None, "with --prompt_format chat: the system message before every input (default: that of the template, if it has one)", inherited=True, compared_as="scoring", metavar="TEXT")
    scoring: str = MORE_TEXTS("generate", "how dev and test answers are made. rank: the most likely of an example's options, by mean log-probability per token, in tasks with an options field, a list (A) ... (B) ... in the input, or a set of labels, as their train files show; other tasks are generated", choices=SCORINGS, inherited=True, compared_as="scoring")
    measures: tuple[str, ...] = MORE_TEXTS((PERFORMANCE,), "what scores have beside performance, the task's metric. answer_loss: the loss of the first accepted answer in nats per token, and per answer, for one forward pass; rank_accuracy: share of examples whose likeliest option is accepted, for the cost of --scoring rank if answers are generated; or a measure of --plugin", choices=MEASURES)
    num_beams: int = TEXTS(4, "beams of generation", range=AT_LEAST_1, inherited=True, compared_as="scoring")
    no_repeat_ngram_size: int | None = MORE_TEXTS(None, "generate no n-gram of this size twice; 0: no limit (default: that of the model's generation settings; 3 for facebook/bart-base)", range=NOT_NEGATIVE, inherited=True, compared_as="scoring")
    generate_from_bos: bool = MORE_TEXTS(False, "start generation from <s>, as the published code does; training starts from </s>, and so does generation by default", negatable=True, inherited=True, compared_as="scoring")
    eval_sampled_routes: bool = MORE_TEXTS(False, "score with routes sampled with Gumbel noise, as the published code does; scores are then random", compared_as="scoring")
    change_texts: bool = MORE_TEXTS(False, "accept flags by which texts look different from those that the start was trained on", on_resume=True)


LENGTHS = ("max_input_length", "max_output_length")
FORMAT_FLAGS = (  # how texts look
    *("do_lowercase", "append_another_bos", "hide_task_names", "no_prefix", "prompt_format", "system"),
)
# Flags of TextFlags that a checkpoint keeps: texts and answers of another command are made in the same way.
TEXT_SETTINGS = (*LENGTHS, *FORMAT_FLAGS, "num_beams", "no_repeat_ngram_size", "generate_from_bos")


def given_texts(settings) -> dict[str, int | bool | str]:
    """Returns {name: value} of the text settings that were given on the command line."""
    return {name: value for name in TEXT_SETTINGS if (value := getattr(settings, name, None)) is not None}


def _given(name: str, names: tuple[str, ...]) -> type[PluginFlags]:
    """Returns flags of a trained model, which usually says how it reads texts. None: not given."""
    found = []
    for field in (field for field in fields(TextFlags) if field.name in names):
        flag = field.metadata["flag"]
        help = flag.help.partition(" (default")[0] + " (default: as in the training)"
        metadata = {"flag": replace(flag, help=help, group="texts and decoding")}
        found.append((field.name, field.type | None, dataclass_field(default=None, metadata=metadata)))
    return make_dataclass(name, found, bases=(PluginFlags,), frozen=True, kw_only=True)


GivenTexts = _given("GivenTexts", TEXT_SETTINGS)
GivenReading = _given("GivenReading", (*LENGTHS, *FORMAT_FLAGS))  # of commands that generate nothing


@dataclass(frozen=True, kw_only=True)
class OptimizerFlags(Command):
    """AdamW, clipping, memory and precision."""

    max_tokens_per_micro_batch: int | None = MORE_OPTIMISATION(None, "maximum padded source and target tokens per micro-batch; limits memory; changes results only by rounding and by which dropout masks are drawn; 0: no limit. Halved when a step runs out of memory (default: 16384, on CUDA 32768)", range=NOT_NEGATIVE, on_resume=True)
    micro_batch_overhead: int | None = MORE_OPTIMISATION(None, "cost of a micro-batch, in padded tokens, when a step is cut into micro-batches at minimum cost: the higher, the fewer micro-batches, with more padding; changes time and memory, results only as that limit (default: 256 on a CPU, 8192 on CUDA)", range=NOT_NEGATIVE, on_resume=True)
    base_lr: float = MORE_OPTIMISATION(0.0, "peak learning rate of what experts share: of experts of kind lora the model (with --shared_base the default is --learning_rate). 0: frozen; a checkpoint has then only the other weights, and the place and checksum of this model", range=NOT_NEGATIVE, compared_as="budget")
    weight_decay: float = OPTIMISATION(0.01, "decoupled weight decay of matrices", range=NOT_NEGATIVE, compared_as="budget")
    adam_epsilon: float = OPTIMISATION(1e-8, "AdamW's epsilon", range=POSITIVE)
    max_grad_norm: float = OPTIMISATION(0.1, "clip the norm of the whole gradient of the summed loss; inf: no clipping", range=POSITIVE_OR_INFINITE, compared_as="budget")
    mixed_precision: str | None = MORE_OPTIMISATION(None, "precision of matrix products; weights stay float32. no: float32, on CUDA with factors rounded to TF32; auto: bf16 on a GPU that supports it, else no (default: that of accelerate launch, else auto)", choices=PRECISIONS)
    gradient_checkpointing: bool = MORE_OPTIMISATION(False, "keep no activations of layers, but compute them again in the backward pass: less memory, for a third more time", on_resume=True)
    compile: bool = MORE_OPTIMISATION(False, "compile every layer with torch.compile, once for all shapes: for long trainings on a GPU; evaluations run uncompiled. Changes the rounding and the dropout masks", on_resume=True)
# fmt: on


@dataclass(frozen=True, kw_only=True)
class RunFlags(TextFlags, OptimizerFlags, PluginFlags):
    """What training and fine-tuning derive from their flags. A subclass has `debug`, `task_routes`, `select_by`."""

    source_flags: ClassVar[Mapping[str, str | None]]  # {flag: the key of `ROUTE_SOURCES`; None: its value}

    # fmt: off
    label_smoothing: float | None = OPTIMISATION(None, "label smoothing of the loss (default: that of the checkpoint; of a new model 0.1, 0 if it is decoder-only)", range=PROBABILITY, compared_as="budget")
    # fmt: on

    @property
    def selecting_flags(self) -> list[str]:
        """The given flags that select a key of `ROUTE_SOURCES`; more than one is a problem."""
        return [flag for flag in self.source_flags if getattr(self, flag)]

    @property
    def chosen_source(self) -> str | None:
        """The selected key of `ROUTE_SOURCES`; None: that of the checkpoint, or learned."""
        return next((self.source_flags[flag] or getattr(self, flag) for flag in self.selecting_flags), None)

    @property
    def by_loss(self) -> bool:
        """Whether a task gets the route of lowest loss on its labelled rows, of those of a trained mixture."""
        return self.task_routes == LOWEST_LOSS

    @property
    def reads_options(self) -> bool:
        """Whether answer options are read: to answer with the best one, or to measure how good it is."""
        return self.scoring == "rank" or "options" in needed((*self.measures, self.select_by))

    @property
    def examples_per_file(self) -> int | None:
        """The number of examples that are read of each task file; None: all."""
        return 8 if self.debug else None


def text_settings(settings: TextFlags) -> dict[str, int | bool | str | None]:
    """Returns {name: value} of the flags that a checkpoint keeps as `config.text_settings`."""
    return {name: getattr(settings, name) for name in TEXT_SETTINGS}


def trained_texts(saved: Mapping | None, given: Collection[str]) -> dict[str, int | bool | str | None]:
    """Returns {name: value} of a configuration's `text_settings`, without the flags that are `given`."""
    return {name: saved[name] for name in TEXT_SETTINGS if name in (saved or {}) and name not in given}


def with_texts_of(settings, config, where, given: Collection[str]):
    """Returns the settings with the texts of the start `where` but for the `given` flags; notes both."""
    texts = trained_texts(config.text_settings, given)
    words = [f"{name} {value}" for name, value in texts.items() if value != getattr(TextFlags, name)]
    settings, of_start = replace(settings, **texts), f"the training of {where}"
    if words:
        early_notes.append(f"texts are those of {of_start}: {', '.join(words)}")
    early_notes.extend(changed(text_settings(settings), config.text_settings or {}, of_start))
    return settings


# random:SPEC or random:SPEC:SEED; the number after clusters: is a part of SPEC.
PERMUTED = re.compile(r"random:(clusters:[^:]+|.+?)(?::(\d+))?")


def without_permutation(spec: str) -> tuple[str, str | None]:
    """Returns (SPEC, SEED or "") of random:SPEC[:SEED], a --task_routes; (spec, None) of another value."""
    match = PERMUTED.fullmatch(spec)
    return (match[1], match[2] or "") if match else (spec, None)


def text_problems(settings, config, where, lengths: Collection[str] = LENGTHS) -> list[str]:
    """Returns errors of flags that do not fit the model `where` or its training. config: a `Mixture`."""
    positions = config.max_position_embeddings
    problems = [
        f"--{name} is {getattr(settings, name)}, but {where} has {positions} positions"
        for name in lengths
        if getattr(settings, name) > positions
    ]
    given = [f for f in ("append_another_bos", "generate_from_bos") if getattr(settings, f, False)]
    if config.bos_token_id is None:
        problems += [f"--{flag}: {where} has no token <s>; leave it out" for flag in given]
    elif not config.is_encoder_decoder:
        problems += [f"--{flag} is for models with an encoder; leave it out" for flag in given]
    both = sum(getattr(settings, name) for name in lengths)
    if not config.is_encoder_decoder and len(lengths) > 1 and both > positions:
        names = " and ".join(f"--{name}" for name in lengths)
        problems.append(f"{names} are {both} together, but {where} has {positions} positions")
    prompt_format = getattr(settings, "prompt_format", "crossfit")
    if config.is_encoder_decoder and prompt_format != "crossfit":
        problems.append(f"--prompt_format {prompt_format} is for decoder-only models; give crossfit")
    elif prompt_format == "crossfit" and getattr(settings, "system", None) is not None:
        problems.append(f"--system {settings.system!r}: system messages are for --prompt_format chat")
    if not problems and not getattr(settings, "change_texts", False):  # one message about a flag is enough
        formats = {name: getattr(settings, name) for name in FORMAT_FLAGS if hasattr(settings, name)}
        wrong = changed(formats, config.text_settings or {}, f"the training of {where}")
        advice = ", or add --change_texts" if hasattr(settings, "change_texts") else ""
        problems += [f"{line}; leave the flag out{advice}" for line in wrong]
    return problems


@dataclass(frozen=True)
class Start:
    """Where a model comes from: a checkpoint, or a plain model; and what replaces parts of it."""

    model: str  # plain model, also the tokenizer of a checkpoint without one
    checkpoint: str | None = None  # run, checkpoint, plain model or hub name; None: `model`
    checkpoint_name: str | None = None  # which checkpoint of a run; None: best
    vanilla: str | None = None  # weights instead of those of `model`
    vectors: str | None = None  # folder of task vectors
    routes: str | None = None  # value of --task_routes, of random:SPEC with its seed

    @property
    def described(self) -> str:
        """The start in words, for logs and errors."""
        if self.checkpoint:
            return str(Path(self.checkpoint, self.checkpoint_name or ""))
        return self.model + (f" with the weights of {self.vanilla}" if self.vanilla else "")


@dataclass(frozen=True)
class StepSettings:
    """What an optimizer step depends on, besides model and data. A learning rate of 0 freezes its part."""

    learning_rate: float = 1e-5
    base_lr: float = 0.0
    shared_base: bool = False
    router_lr: float = 0.0
    task_model_lr: float = 0.0
    train_batch_size: int = 16
    gradient_accumulation_steps: int = 1
    max_tokens_per_micro_batch: int | None = None
    micro_batch_overhead: int | None = None
    total_steps: int = 1000
    warmup_steps: int = 0
    weight_decay: float = 0.01
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 0.1
    gradient_checkpointing: bool = False
    compile: bool = False
    initial_tau: float = 1.0
    minimum_tau: float = 1.0
    anneal_rate: float = 0.0
    alternate_every: int = 0
    expert_regularization: float = 0.0
    load_balance: float = 0.0
    task_sampling: str = "examples"
    seed: int = 42

    @property
    def step_size(self) -> int:
        """Examples in one optimizer step."""
        return self.train_batch_size * self.gradient_accumulation_steps

    def temperature(self, step: int) -> float:
        """Returns the temperature of the selection in a step (counted from 0)."""
        return max(self.initial_tau * math.exp(-self.anneal_rate * step), self.minimum_tau)


def last_step(settings, n_examples: int, step_size: int) -> int:
    """Returns the step after which a training ends: --total_steps, or that of --num_train_epochs if before."""
    if settings.num_train_epochs is None:
        return settings.total_steps
    return min(settings.total_steps, math.ceil(settings.num_train_epochs * n_examples / step_size))


def step_settings_of(settings, **others) -> StepSettings:
    """Returns the settings with the values of the settings' fields of the same names, and with `others`."""
    names = {field.name for field in fields(StepSettings)} & {field.name for field in fields(settings)}
    return StepSettings(**{name: getattr(settings, name) for name in names} | others)
