"""Everything that can be wrong with flags and data, found before a model is loaded, told at once."""

import importlib.util
import math
import os
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from transformers import AutoConfig, BartConfig

from dataloader.encoding import TextFormat
from dataloader.errors import InputError, did_you_mean, in_brief, told_with
from dataloader.gym import Gym
from dataloader.jsonfile import load_json_object
from dataloader.ontology import Ontology
from dataloader.task_splits import Split, load_split
from routing_moe.configuration import RoutingBartConfig
from routing_moe.routers import ROUTERS
from routing_moe.run_state import load_run_settings
from routing_moe.selection import ROUTER_MODES
from routing_moe.settings import Settings
from routing_moe.starting import architecture, checkpoint_to_start_from
from routing_moe.task_vectors import load_task_vectors

AT_LEAST_ONE = (
    "train_batch_size",
    "predict_batch_size",
    "gradient_accumulation_steps",
    "total_steps",
    "eval_period",
    "save_period",
    "num_beams",
)
POSITIVE = ("initial_tau", "minimum_tau", "max_grad_norm", "adam_epsilon", "num_train_epochs")
NOT_NEGATIVE = (
    "anneal_rate",
    "learning_rate",
    "router_lr",
    "task_model_lr",
    "weight_decay",
    "init_eps",
    "expert_regularization",
    "alternate_every",
    "max_tokens_per_micro_batch",
    "checkpoint_period",
    "no_eval_until",
    "seed",
)
INFINITY_HAS_A_MEANING = {"max_grad_norm"}  # no clipping
PROBABILITY = ("exploration_epsilon", "warmup_ratio")
ARCHITECTURE_FIELDS = {  # flags that a checkpoint has answers of its own to, and where it keeps them
    "num_experts": "num_experts",
    "router_nn_type": "router_nn_type",
    "router_hidden_dim": "router_hidden_dim",
    "taskvecs_dim": "router_input_dim",
    "encoder_vanilla_layers": "encoder_vanilla_layers",
    "decoder_vanilla_layers": "decoder_vanilla_layers",
}
STARTING_ONLY = ("model", "init_eps", "vanilla_checkpoint", "taskvecs")
TRAINING_ONLY = (
    "initialize_from_vanilla",
    "resume",
    "initial_tau",
    "minimum_tau",
    "anneal_rate",
    "exploration_epsilon",
    "expert_regularization",
    "alternate_every",
    "freeze_task_model",
    "train_batch_size",
    "gradient_accumulation_steps",
    "max_tokens_per_micro_batch",
    "learning_rate",
    "router_lr",
    "task_model_lr",
    "weight_decay",
    "adam_epsilon",
    "max_grad_norm",
    "num_train_epochs",
    "total_steps",
    "warmup_ratio",
    "eval_period",
    "no_eval_until",
    "save_period",
    "checkpoint_period",
    "log_with",
)
FEW = 5  # names shown of a long list


@dataclass(frozen=True)
class Inputs:
    """The data of a run, found to be sound."""

    train_gym: Gym
    predict_gym: Gym
    split: Split
    ontology: Ontology
    text_format: TextFormat


class Faults(list):
    """Collects the faults of checks that raise InputError."""

    def of(self, check, *arguments, flag: str | None = None):
        """The check's result, or None with its faults noted, after the flag that gave the path if any."""
        try:
            with told_with(f"--{flag} " if flag else ""):
                return check(*arguments)
        except InputError as error:
            self.extend(error.faults)
            return None


def check_inputs(settings: Settings, given: set[str] = frozenset()) -> Inputs:
    """Open and check everything the settings name. Raises one InputError with all faults.

    given: the flags that stand on the command line; one that would have no effect is a fault.
    """
    faults = Faults(number_faults(settings) + idle_flags(settings, given))
    text_format = faults.of(
        TextFormat,
        settings.max_input_length,
        settings.max_output_length,
        settings.do_lowercase,
        settings.append_another_bos,
    )
    train_gym = faults.of(Gym, settings.train_dir, settings.skip_malformed, flag="train_dir")
    predict_gym = train_gym
    if settings.predict_dir != settings.train_dir:
        predict_gym = faults.of(Gym, settings.predict_dir, settings.skip_malformed, flag="predict_dir")
    split = None
    if train_gym and not settings.custom_tasks_splits and not split_path(settings).is_file():
        faults.append(
            f"--train_dir {settings.train_dir} has no split.json; name one by --custom_tasks_splits"
        )
    elif train_gym or settings.custom_tasks_splits:
        flag = "custom_tasks_splits" if settings.custom_tasks_splits else None
        split = faults.of(load_split, split_path(settings), flag=flag)
    flag = "task_ontology" if settings.task_ontology else None
    ontology = faults.of(Ontology.load, ontology_path(settings), flag=flag)
    if split and train_gym and predict_gym:
        faults += data_faults(settings, train_gym, predict_gym, split)
    faults += run_folder_faults(settings)
    faults += start_faults(settings, split)
    if faults:
        raise InputError(faults)
    return Inputs(train_gym, predict_gym, split, ontology, text_format)


def idle_flags(settings: Settings, given: set[str]) -> list[str]:
    """Faults for flags that are given but would do nothing in this run (`notes` has the harmless ones)."""
    from_bart = settings.initialize_from_vanilla and settings.do_train
    rules = [
        (not settings.do_predict, ("predict_split", "predict_temperature", "prefix"), "out --do_predict"),
        (
            settings.do_train and not from_bart and not settings.resume,
            STARTING_ONLY,
            "out --initialize_from_vanilla: a checkpoint brings its own",
        ),
        (from_bart, ("checkpoint_name",), " --initialize_from_vanilla: --model is the start, best predicts"),
    ]
    faults = [
        f"--{name} has no effect with{reason}"
        for idle, names, reason in rules
        if idle
        for name in names
        if name in given
    ]
    if settings.checkpoint and "checkpoint_name" in given:
        faults.append("--checkpoint and --checkpoint_name both name a checkpoint; give one of them")
    return faults


def notes(settings: Settings, given: set[str]) -> list[str]:
    """What a user should know but need not mend: flags of a training command kept in a prediction's."""
    idle = [] if settings.do_train else sorted(given & {*TRAINING_ONLY, *STARTING_ONLY})
    return [f"without --do_train no effect have: {', '.join(f'--{name}' for name in idle)}"] if idle else []


def split_path(settings: Settings) -> Path:
    """`--custom_tasks_splits`, or the gym's own `split.json`."""
    return Path(settings.custom_tasks_splits or Path(settings.train_dir) / "split.json")


def ontology_path(settings: Settings) -> Path | None:
    """`--task_ontology`, or the gym's own `ontology.json`, or None for the 160 CrossFit tasks'."""
    own = Path(settings.train_dir) / "ontology.json"
    return settings.task_ontology or (own if own.is_file() else None)


def number_faults(settings: Settings) -> list[str]:
    """Numbers out of range and choices that do not exist, named as typed."""
    faults = []
    rules = [
        (AT_LEAST_ONE, lambda value: value >= 1, "at least 1"),
        (POSITIVE, lambda value: value > 0, "greater than 0"),
        (NOT_NEGATIVE, lambda value: value >= 0, "0 or greater"),
        (PROBABILITY, lambda value: 0 <= value <= 1, "from 0 to 1"),
        (("predict_temperature",), lambda value: value is None or value > 0, "greater than 0"),
    ]
    for names, holds, must_be in rules:
        for name in names:
            value = getattr(settings, name)
            if not holds(value):  # a NaN fails every rule
                faults.append(f"--{name} is {value}; it must be {must_be}")
    faults += [
        f"--{field.name} is infinite; it must be a number"
        for field in fields(settings)
        if field.name not in INFINITY_HAS_A_MEANING and getattr(settings, field.name) in (math.inf, -math.inf)
    ]
    if settings.seed >= 2**32:
        faults.append(f"--seed is {settings.seed}; it must be below 2**32")
    if settings.mixed_precision == "fp16" and not torch.cuda.is_available():
        faults.append("--mixed_precision is fp16, which needs a GPU; on a CPU give bf16 or no")
    for name, choices in (("router_mode", ROUTER_MODES), ("router_nn_type", tuple(ROUTERS))):
        value = getattr(settings, name)
        if value is not None and value not in choices:
            guess = did_you_mean(value, choices)
            faults.append(f"--{name} is {value!r}; choose from {', '.join(choices)}{guess}")
    if settings.minimum_tau > settings.initial_tau:
        faults.append(
            f"--minimum_tau is {settings.minimum_tau}, above --initial_tau {settings.initial_tau}; "
            "the temperature falls from the initial to the minimum"
        )
    if not settings.do_train and not settings.do_predict:
        faults.append("nothing to do: give --do_train, --do_predict or both")
    for module, name in (("tensorboard", "tensorboard"), ("wandb", "wandb")):
        if settings.log_with == name and importlib.util.find_spec(module) is None:
            faults.append(f"--log_with is {name!r}, which needs: pip install {module}")
    return faults


def data_faults(settings: Settings, train_gym: Gym, predict_gym: Gym, split: Split) -> list[str]:
    """Missing or malformed files and unknown metrics of the tasks that the run will read."""
    faults = []
    if settings.do_train:
        if not split.train:
            faults.append(f"{split.path}: the train section is empty; there is nothing to train on")
        faults += task_faults(split, split.train, train_gym, ["train"], "all")
        faults += task_faults(split, split.train, predict_gym, ["dev"], settings.predict_samples)
    if settings.do_predict:
        tasks = split.section(settings.predict_split)
        if not tasks:
            faults.append(
                f"--predict_split is {settings.predict_split!r}, a section that {split.path} leaves empty"
            )
        faults += task_faults(split, tasks, predict_gym, ["dev", "test"], settings.predict_samples)
    return list(dict.fromkeys(faults))


def task_faults(split: Split, tasks, gym: Gym, parts: list[str], samples: str) -> list[str]:
    """Faults of some of a split's tasks in a gym: those it does not have, then those of its files."""
    known = set(gym.tasks())
    unknown = [task for task in tasks if task not in known]
    faults = [f"{split.path}: {fault}" for fault in gym.check(unknown, parts, metrics=False)]
    tasks = [task for task in tasks if task in known]
    if samples not in ("all", "first"):
        lacking = [task for task in tasks if not gym.has_sample(task, samples)]
        if lacking:
            faults.append(
                f"--predict_samples is {samples!r}: no such sample of {in_short(lacking)}; give all, first, "
                f"or a seed such as {gym.samples(lacking[0])[0].rsplit('_', 1)[-1]}"
            )
        tasks = [task for task in tasks if task not in lacking]
    return faults + gym.check(tasks, parts, samples)


def in_short(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


def run_folder_faults(settings: Settings) -> list[str]:
    """An output folder that holds another run must not be overwritten, nor resumed with other settings."""
    folder = Path(settings.output_dir)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        return [f"--output_dir {folder}: {there} is a file; name a folder"]
    if not os.access(there, os.W_OK | os.X_OK):
        return [f"--output_dir {folder}: {there} cannot be written to"]
    faults = Faults()
    saved = faults.of(load_run_settings, folder)
    if faults or saved is None or not settings.do_train:
        return faults
    if not settings.resume:
        return [
            f"--output_dir {folder} already holds a run; give --resume to continue it, or name another folder"
        ]
    return settings.differences(saved)


def start_faults(settings: Settings, split: Split | None) -> list[str]:
    """A start that is missing or contradicts itself; task vectors that do not cover the split."""
    checkpoint = checkpoint_to_start_from(settings)
    faults = []
    if settings.initialize_from_vanilla and settings.checkpoint:
        faults.append("--initialize_from_vanilla and --checkpoint both name a start; give one of them")
    if settings.vanilla_checkpoint and not Path(settings.vanilla_checkpoint).exists():
        faults.append(f"--vanilla_checkpoint {settings.vanilla_checkpoint}: not found")
    if not settings.do_train and not settings.do_predict:
        return faults
    if checkpoint is not None:
        return faults + checkpoint_faults(settings, checkpoint, split)
    if settings.do_train and settings.initialize_from_vanilla:
        return faults + vanilla_faults(settings, split)
    wanted = f"--checkpoint {settings.checkpoint}"
    if not settings.checkpoint:
        wanted = f"--output_dir {settings.output_dir} --checkpoint_name {settings.checkpoint_name}"
    hint = "; to train from a plain BART give --initialize_from_vanilla" if settings.do_train else ""
    return [*faults, f"{wanted}: no checkpoint there (a folder with a config.json){hint}"]


def vanilla_faults(settings: Settings, split: Split | None) -> list[str]:
    """The plain BART's config against the flags, and the task vectors against the split."""
    faults = Faults()
    fields = architecture(settings)
    if settings.taskvecs:
        loaded = faults.of(load_task_vectors, settings.taskvecs, flag="taskvecs")
        if loaded:
            names, vectors_ND = loaded
            faults += vector_faults(settings, names, vectors_ND.shape[1], split)
            fields["router_input_dim"] = vectors_ND.shape[1]
    if not Path(settings.model).is_dir() and not is_hub_name(settings.model):
        return [
            *faults,
            f"--model {settings.model}: no such folder (nor a hub name such as facebook/bart-base)",
        ]
    try:
        bart = AutoConfig.from_pretrained(settings.model)
    except Exception as error:  # the library's own ways to fail
        place = "there" if Path(settings.model).is_dir() else "the hub, and there is no such folder"
        return [*faults, f"--model {settings.model}: no model can be loaded from {place} ({in_brief(error)})"]
    if not isinstance(bart, BartConfig) or isinstance(bart, RoutingBartConfig):
        return [
            *faults,
            f"--model {settings.model} is a {bart.model_type!r} model; the experts are made from a 'bart'",
        ]
    known = {k: v for k, v in bart.to_dict().items() if k not in ("model_type", "architectures")}
    try:
        told_already = ["router_mode", "exploration_epsilon"]
        if fields["router_nn_type"] not in ROUTERS:
            told_already.append("router_nn_type")
        RoutingBartConfig(**known | {k: v for k, v in fields.items() if k not in told_already})
    except Exception as error:  # the library wraps the configuration's own message in errors of its own
        named = str(error.__cause__ or error).replace("router_input_dim is", "taskvecs_dim is")
        faults += [f"--{fault}" for fault in named.splitlines()]
    return faults + position_faults(settings, bart.max_position_embeddings, settings.model)


def is_hub_name(model: str) -> bool:
    """Whether `model` has the form "name" or "organisation/name"; anything else can only be a path."""
    return model.count("/") <= 1 and not model.startswith((".", "/", "~")) and not model.endswith("/")


def vector_faults(settings: Settings, names: list[str], dim: int, split: Split | None) -> list[str]:
    faults = []
    if settings.taskvecs_dim not in (None, dim):
        faults.append(
            f"--taskvecs_dim is {settings.taskvecs_dim}, but the vectors of {settings.taskvecs} have {dim} "
            "dimensions; leave the flag out to use the file's"
        )
    lacking = sorted(set(split.train if split else ()) - set(names))
    if settings.do_predict and split:
        lacking = sorted({*lacking, *split.section(settings.predict_split)} - set(names))
    if lacking:
        faults.append(f"--taskvecs {settings.taskvecs} has no vector for {in_short(lacking)}")
    return faults


def checkpoint_faults(settings: Settings, checkpoint: Path, split: Split | None) -> list[str]:
    """The checkpoint's own config against the flags and the tasks of the split."""
    faults = Faults()
    config = faults.of(load_json_object, checkpoint / "config.json", "a model's configuration")
    if config is None:
        return faults
    if config.get("model_type") != RoutingBartConfig.model_type:
        return [f"{checkpoint} holds a {config.get('model_type')!r} model, not a routing BART"]
    wanted = set(split.train) if split and settings.do_train else set()
    if split and settings.do_predict:
        wanted |= set(split.section(settings.predict_split))
    if lacking := sorted(wanted - set(config.get("task_names") or ())):
        faults.append(f"{checkpoint} has no task vector for {in_short(lacking)}")
    faults += [
        f"--{flag} is {getattr(settings, flag)}, but {checkpoint} was trained with {config.get(field)}; "
        "leave the flag out to use the checkpoint's"
        for flag, field in ARCHITECTURE_FIELDS.items()
        if getattr(settings, flag) is not None and getattr(settings, flag) != config.get(field)
    ]
    return faults + position_faults(settings, config.get("max_position_embeddings", 1024), checkpoint)


def position_faults(settings: Settings, positions: int, where) -> list[str]:
    return [
        f"--{name} is {getattr(settings, name)}, but {where} has {positions} positions"
        for name in ("max_input_length", "max_output_length")
        if getattr(settings, name) > positions
    ]
