"""Everything that can be wrong with flags and data, found before a model is loaded, told at once."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, BartConfig

from dataloader.encoding import TextFormat
from dataloader.errors import InputError, did_you_mean
from dataloader.gym import Gym
from dataloader.ontology import Ontology
from dataloader.task_splits import Split, load_split
from routing_moe.configuration import RoutingBartConfig
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
PROBABILITY = ("exploration_epsilon", "warmup_ratio")


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

    def of(self, check, *arguments):
        """The check's result, or None with its faults noted."""
        try:
            return check(*arguments)
        except InputError as error:
            self.extend(error.faults)
            return None


def check_inputs(settings: Settings) -> Inputs:
    """Open and check everything the settings name. Raises one InputError with all faults."""
    faults = Faults(number_faults(settings))
    text_format = faults.of(
        TextFormat,
        settings.max_input_length,
        settings.max_output_length,
        settings.do_lowercase,
        settings.append_another_bos,
    )
    train_gym = faults.of(Gym, settings.train_dir, settings.skip_malformed)
    predict_gym = train_gym
    if settings.predict_dir != settings.train_dir:
        predict_gym = faults.of(Gym, settings.predict_dir, settings.skip_malformed)
    split = faults.of(load_split, split_path(settings))
    ontology = faults.of(Ontology.load, ontology_path(settings))
    if split and train_gym and predict_gym:
        faults += data_faults(settings, train_gym, predict_gym, split)
    faults += run_folder_faults(settings)
    faults += start_faults(settings, split)
    if faults:
        raise InputError(faults)
    return Inputs(train_gym, predict_gym, split, ontology, text_format)


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
    if settings.router_mode is not None and settings.router_mode not in ROUTER_MODES:
        guess = did_you_mean(settings.router_mode, ROUTER_MODES)
        faults.append(
            f"--router_mode is {settings.router_mode!r}; choose from {', '.join(ROUTER_MODES)}{guess}"
        )
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
        faults += train_gym.check(split.train, ["train"], "all")
        faults += predict_gym.check(split.train, ["dev"], settings.predict_samples)
    if settings.do_predict:
        tasks = split.section(settings.predict_split)
        if not tasks:
            faults.append(
                f"--predict_split is {settings.predict_split!r}, a section that {split.path} leaves empty"
            )
        faults += predict_gym.check(tasks, ["dev", "test"], settings.predict_samples)
    return list(dict.fromkeys(faults))


def run_folder_faults(settings: Settings) -> list[str]:
    """An output folder that holds another run must not be overwritten, nor resumed with other settings."""
    folder = Path(settings.output_dir)
    if folder.exists() and not folder.is_dir():
        return [f"--output_dir {folder} is a file; name a folder"]
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
    if settings.vanilla_checkpoint and not settings.initialize_from_vanilla:
        faults.append("--vanilla_checkpoint has no effect without --initialize_from_vanilla")
    if settings.taskvecs and not settings.initialize_from_vanilla:
        faults.append(
            "--taskvecs has no effect without --initialize_from_vanilla: a checkpoint has its own vectors"
        )
    if settings.do_train and settings.initialize_from_vanilla:
        return faults + vanilla_faults(settings, split)
    if checkpoint is None and not (settings.do_train and settings.initialize_from_vanilla):
        wanted = settings.checkpoint or Path(settings.output_dir) / settings.checkpoint_name
        hint = "; to train from a plain BART give --initialize_from_vanilla" if settings.do_train else ""
        faults.append(f"{wanted}: no checkpoint there{hint}")
    elif checkpoint is not None:
        faults += length_faults(settings, Path(checkpoint))
    return faults


def vanilla_faults(settings: Settings, split: Split | None) -> list[str]:
    """The plain BART's config against the flags, and the task vectors against the split."""
    faults = Faults()
    fields = architecture(settings)
    if settings.taskvecs:
        loaded = faults.of(load_task_vectors, settings.taskvecs)
        if loaded:
            names, vectors_ND = loaded
            faults += vector_faults(settings, names, vectors_ND.shape[1], split)
            fields["router_input_dim"] = vectors_ND.shape[1]
    try:
        bart = AutoConfig.from_pretrained(settings.model)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        return [*faults, f"--model {settings.model}: no model can be loaded from there ({reason})"]
    if not isinstance(bart, BartConfig) or isinstance(bart, RoutingBartConfig):
        return [
            *faults,
            f"--model {settings.model} is a {bart.model_type!r} model; the experts are made from a 'bart'",
        ]
    known = {k: v for k, v in bart.to_dict().items() if k not in ("model_type", "architectures")}
    try:
        RoutingBartConfig(**known | fields)
    except Exception as error:  # the library wraps the configuration's own message in errors of its own
        faults.append(str(error.__cause__ or error))
    return faults + position_faults(settings, bart.max_position_embeddings, settings.model)


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
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        faults.append(f"{settings.taskvecs} has no vector for {', '.join(lacking[:5])}{more}")
    return faults


def length_faults(settings: Settings, checkpoint: Path) -> list[str]:
    try:
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        return [f"{checkpoint / 'config.json'}: not JSON ({error})"]
    if config.get("model_type") != RoutingBartConfig.model_type:
        return [f"{checkpoint} holds a {config.get('model_type')!r} model, not a routing BART"]
    return position_faults(settings, config.get("max_position_embeddings", 1024), checkpoint)


def position_faults(settings: Settings, positions: int, where) -> list[str]:
    return [
        f"--{name} is {getattr(settings, name)}, but {where} has {positions} positions"
        for name in ("max_input_length", "max_output_length")
        if getattr(settings, name) > positions
    ]
