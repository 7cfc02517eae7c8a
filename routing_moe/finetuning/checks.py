"""Checks of a grid's flags and files before torch is imported; all faults are reported at once."""

import dataclasses
import importlib.util
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from dataloader.encoding import TextFormat
from dataloader.errors import Faults, InputError, did_you_mean
from dataloader.gym import Gym
from dataloader.options import find_options
from routing_moe.checkpoints.find import SavedBart, SavedMixture, find_start
from routing_moe.checkpoints.tokenizer_files import check_start_tokenizer, keeps_tokenizer
from routing_moe.config.choices import ROUTE_SOURCES
from routing_moe.config.finetune import SINGLE, FinetuneSettings
from routing_moe.config.flags import (
    differences,
    existing_paths,
    flag_faults,
    with_valid_values,
)
from routing_moe.finetuning.task_choices import given_route_faults, vector_faults
from routing_moe.io.files import unwritable
from routing_moe.io.hub import local_folder
from routing_moe.io.precision import precision_faults
from routing_moe.io.run_folder import foreign_faults, load_run_settings
from routing_moe.model.saved_config import load_bart_config
from routing_moe.training.start_checks import position_faults


@dataclass(frozen=True)
class FinetuneInputs:
    """The checked inputs of a grid. gyms: their train files are the source of text vectors."""

    settings: FinetuneSettings
    gym: Gym
    gyms: list[Gym]
    start: SavedMixture | SavedBart


def check_finetuning(settings: FinetuneSettings) -> FinetuneInputs:
    """Opens and checks all that the settings name; fills in the grid's lists and the samples.

    Raises one InputError with all faults.
    """
    faults = Faults(flag_faults(settings) + precision_faults(settings) + list_faults(settings))
    settings = with_valid_values(settings).with_lists()
    if not settings.do_train and not settings.do_predict:
        faults.append("nothing to do: give --do_train, --do_predict or both")
    faults.of(TextFormat.of, settings)
    gym = faults.of(open_gym, settings)
    if gym:
        settings, data = with_samples(settings, gym)
        faults += data
    gyms = [gym] if gym else []
    if settings.train_dir:
        other = faults.of(Gym, settings.train_dir, settings.skip_malformed, flag="train_dir")
        gyms = [other, *gyms] if other else gyms
    start = faults.of(find_valid_start, settings)
    if start:
        faults += start_faults(settings, start, gyms, ask_hub=not faults)
    faults += running_faults(settings) + folder_faults(settings)
    if faults:
        raise InputError(dict.fromkeys(faults))
    return FinetuneInputs(settings, gym, gyms, start)


# ---- the grid


def list_faults(settings: FinetuneSettings) -> list[str]:
    faults = []
    for name, single in SINGLE.items():
        values = getattr(settings, name)
        if values is not None and getattr(settings, single) is not None:
            faults.append(f"--{single} and --{name} both set the values to try; give one of them")
        if values and len(set(values)) < len(values):
            faults.append(f"--{name} holds a value twice: {' '.join(map(str, values))}")
    return faults


# ---- the data


def open_gym(settings: FinetuneSettings) -> Gym:
    """Returns the gym that contains the task's folder. Raises InputError if names or folders are wrong."""
    folder = Path(settings.task_dir)
    if not folder.is_dir():
        there = [path.name for path in folder.absolute().parent.glob("*") if path.is_dir()]
        hint = did_you_mean(folder.name, there)
        raise InputError(f"--task_dir {settings.task_dir}: no such folder{hint}")
    if folder.absolute().name != settings.dataset:
        raise InputError(
            f"--dataset is {settings.dataset!r}, but --task_dir is the folder of {folder.absolute().name!r}; "
            "a task has the name of its folder: leave --dataset out"
        )
    return Gym(settings.gym_dir, settings.skip_malformed)


def with_samples(settings: FinetuneSettings, gym: Gym) -> tuple[FinetuneSettings, list[str]]:
    """Returns the settings with the prefixes of the samples of `--samples`, and faults of their files."""
    faults, task, chosen = Faults(), settings.task, {}
    for name in settings.samples:
        named = faults.of(gym.named_samples, task, name, flag="task_dir")
        chosen |= dict.fromkeys(named or ())
        if named == []:
            faults.append(
                f"--samples is {name!r}: no such sample of {task}; give all, first, or some of "
                f"{', '.join(gym.samples(task))}"
            )
    parts = ["train", "dev", *(["test"] if settings.do_predict else [])]
    for sample in chosen:
        faults += gym.check([task], parts, sample)
    if settings.scoring == "rank" and not faults:
        source = faults.of(find_options, task, gym.metric(task), [gym])
        if source and source.name is None:
            faults.append(
                f"--scoring is rank, but {task} has no answer options: an options field in .jsonl files, a "
                "list (A) ... (B) ... in the inputs, or a few labels; give --scoring generate"
            )
    return dataclasses.replace(settings, samples=tuple(chosen)), list(faults)


# ---- the start and the route


def find_valid_start(settings: FinetuneSettings) -> SavedMixture | SavedBart:
    if settings.moe_init and not settings.init_dir:
        raise InputError("--moe_init starts from a mixture; name its run or checkpoint with --init_dir")
    if settings.moe_init and settings.checkpoint:
        raise InputError("--moe_init --init_dir and --checkpoint both name a start; give one of them")
    return find_start(settings)


def start_faults(
    settings: FinetuneSettings, start: SavedMixture | SavedBart, gyms: list[Gym], ask_hub: bool
) -> list[str]:
    """Returns faults: a route that the mixture lacks, a task without a vector, texts that are too long."""
    faults = Faults()
    if isinstance(start, SavedBart):
        flag = "checkpoint" if settings.checkpoint and not start.weights else "model"
        config, place = faults.of(load_bart_config, start.source, ask_hub, flag=flag), start.source
    else:
        config, place = start.config, start.checkpoint
    if config is not None:
        faults += position_faults(settings, config.max_position_embeddings, place)
        faults.of(check_start_tokenizer, place, settings.model, config.vocab_size)
        if isinstance(start, SavedBart) and start.weights:
            content = faults.of(fits, start.weights, start.source)
            if settings.runs_here and content is not None:
                start.kept.append(content)
    if settings.moe_init:
        faults += route_faults(settings, start)
        if not faults and gyms:
            faults += given_route_faults(settings, start, gyms)
        if not faults and gyms and learns_routes(settings, start):
            faults += vector_faults(settings, start, gyms)
    return list(faults)


def fits(weights: str, source: str) -> dict:
    """Returns the content of a file. Raises InputError for weights of another shape than BART `source`."""
    import torch  # takes seconds, so only if there are weights to check
    from transformers import AutoConfig
    from transformers.initialization import no_init_weights

    from routing_moe import RoutingBartConfig, RoutingBartForConditionalGeneration
    from routing_moe.checkpoints.vanilla import load_vanilla_weights
    from routing_moe.model.loading import bart_fields

    fields = bart_fields(AutoConfig.from_pretrained(local_folder(source)))
    with torch.device("meta"), no_init_weights(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that copying into such a model has no effect
        model = RoutingBartForConditionalGeneration(RoutingBartConfig(**fields, num_experts=1))
        return load_vanilla_weights(model, weights, init_eps=0.0, flag="checkpoint")


def learns_routes(settings: FinetuneSettings, start: SavedMixture) -> bool:
    """Returns whether the route comes from the mixture's router."""
    return settings.route_source is None and start.config.has_router


def route_faults(settings: FinetuneSettings, start: SavedMixture) -> list[str]:
    given = [f"--{flag}" for flag in settings.selecting_flags]
    if len(given) > 1:
        return [f"{' and '.join(given)} each set the source of the route; give one of them"]
    source, training = settings.route_source or start.config.route_source, settings.route_training
    if training in ("vector", "router") and source != "learned":
        return [
            f"--route_training is {training}, but {ROUTE_SOURCES[source]} routes use no router; give "
            "plain or fixed, or leave it out"
        ]
    if training == "plain" and source == "average" and start.config.expert_mixing == "outputs":
        return [
            "--route_training is plain, but averaged outputs have no equivalent plain BART; give fixed, or "
            "merged to average the experts' parameters"
        ]
    learns = training in ("vector", "router") or settings.task_vector == "learned"
    if source == "learned" and start.config.is_top_1 and learns:
        return [
            f"{start.checkpoint} has top-1 routes, whose weight is always 1, so a vector gets no gradient; "
            "give --task_vector stored or nearest, and --route_training plain or fixed, or leave them out"
        ]
    return []


# ---- running, the output folder


def running_faults(settings: FinetuneSettings) -> list[str]:
    faults = []
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        faults.append(
            "a configuration runs in one process: leave accelerate launch out, and give --num_workers"
        )
    if settings.ray and importlib.util.find_spec("ray") is None:
        faults.append(f"--ray is {settings.ray!r}, which needs the extra: pip install .[ray]")
    return faults


def folder_faults(settings: FinetuneSettings) -> list[str]:
    """Returns faults: a folder with other files, a run of another command, a grid of other settings."""
    folder, faults = Path(settings.output_dir), Faults()
    if reason := unwritable(folder):
        return [f"--output_dir {reason}"]
    saved = faults.of(load_run_settings, folder)
    if saved is None:
        return list(faults) or foreign_faults(folder, ("config.json", "best", "last", "results.csv"))
    if "task_dir" not in saved:
        return [f"--output_dir {folder} holds a run of another command; name another folder"]
    if not any((folder / "configurations").glob("*.json")):  # a grid without results may change
        return []
    found = differences(settings, saved, f"the grid in {folder}", ignored=existing_paths(settings))
    return [*found[:-1], f"{found[-1]}; for other settings name another --output_dir"] if found else []


def uses_model(settings: FinetuneSettings, start: SavedMixture | SavedBart) -> bool:
    """Returns whether weights or tokenizer of `--model` are used: not if the start has both."""
    if isinstance(start, SavedBart):
        return start.source == settings.model or not keeps_tokenizer(start.source)
    return not keeps_tokenizer(start.checkpoint)
