"""Loads the model and tokenizer that a run starts from: a plain model made into experts, or a checkpoint."""

import copy
import logging
from pathlib import Path

import numpy as np
import torch

from dataloader.errors import InputError, problem_context
from dataloader.task_splits import Split
from routing_moe.checkpoints.find import (
    SavedPlain,
    check_one_expert,
    checkpoint_to_start_from,
    find_vanilla,
    weight_files,
)
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.config.choices import kind_of
from routing_moe.config.shared import Start
from routing_moe.config.train import ARCHITECTURE_FLAGS, OF_EVERY_TRAINING, ROUTING_FLAGS, TrainSettings
from routing_moe.io.hub import is_on_hub
from routing_moe.model.base import base_tensors, refer_to_base, train_base
from routing_moe.model.configuration import Mixture
from routing_moe.model.given_routes import GivenRoutes
from routing_moe.model.loading import check_not_quantized
from routing_moe.model.loss import with_targets
from routing_moe.model.mixtures import (
    load_base_weights,
    load_mixture,
    load_plain,
    mixture_of,
    plain_config,
    read_plain_weights,
)
from routing_moe.model.route_sources import random_task_routes
from routing_moe.model.task_vectors import load_meta, load_task_vectors, seen_by

log = logging.getLogger("routing_moe")

# ---- its configuration


def start_config(settings: TrainSettings, split: Split, routes: GivenRoutes | None) -> Mixture:
    """Returns the configuration of the model that a run starts with; no weights are read.

    routes: those of --task_routes for training. Raises InputError for flags that do not fit.
    """
    if routes is not None and routes.vectors:
        check_width(settings, routes.vectors_ND)
    checkpoint = checkpoint_to_start_from(settings)
    if checkpoint is None:
        with problem_context("--model "):
            config = plain_config(settings.model, low_rank=settings.expert_kind == "lora")
        if settings.vanilla_checkpoint:
            with problem_context("--vanilla_checkpoint "):
                vanilla = find_vanilla(settings.vanilla_checkpoint, settings.model)
                config.text_settings = vanilla.config.text_settings
        config = with_flags(config, new_fields(settings, split, routes))
        config.dtype = settings.base_dtype
        check_base_type(settings, config)
        return config
    config = Mixture.load(checkpoint)
    check_base_type(settings, config)
    wrong = [
        f"--{flag} is {getattr(settings, flag)}, but {checkpoint} was trained with {getattr(config, field)}; "
        "leave the flag out to use the checkpoint's"
        for flag, field in ARCHITECTURE_FLAGS.items()
        if getattr(settings, flag) not in (None, getattr(config, field))
        and not (config.has_table and flag == "taskvecs_dim")  # which follows from layers and experts
    ]
    if wrong:
        raise InputError(wrong)
    return with_flags(config, changed_fields(settings, config))


def check_base_type(settings: TrainSettings, config: Mixture) -> None:
    """Raises InputError for another type than the saved one, or 16 or 4 bits where weights are trained."""
    kind = str(config.dtype or "float32").removeprefix("torch.")
    if settings.base_dtype not in (None, kind):
        raise InputError(
            f"--base_dtype is {settings.base_dtype}, but the checkpoint's is {kind}; leave the flag out"
        )
    if config.has_lora and not settings.base_lr:
        return
    if kind == "bfloat16":
        raise InputError("the base is in bfloat16 (--base_dtype): for low-rank experts, with --base_lr 0")
    check_not_quantized(config, "train low-rank experts (--expert_kind lora), with --base_lr 0")


def with_flags(config: Mixture, fields: dict) -> Mixture:
    """Returns a copy with other fields. Raises InputError with a line for each flag that does not fit."""
    changed = copy.deepcopy(config)
    for name, value in fields.items():
        setattr(changed, name, value)
    changed.set_table_width()
    try:
        changed.check()
    except ValueError as error:
        named = str(error).replace("router_input_dim is", "taskvecs_dim is")
        raise InputError(f"--{line}" for line in named.splitlines()) from None
    return changed


def new_fields(settings: TrainSettings, split: Split, routes: GivenRoutes | None) -> dict:
    """Returns the fields of a new mixture, with the tasks of the split, or of --taskvecs if it reads them."""
    fields = settings.architecture() | {"task_names": sorted(split.all)}
    fields["trained_tasks"] = []  # an exported plain model has its own
    if routes is not None and settings.num_experts is None:
        fields["num_experts"] = routes.num_experts
    reads_vectors = kind_of(fields["route_source"]).reads_vectors and fields["num_experts"] > 1
    if settings.taskvecs and reads_vectors:
        fields["task_names"], vectors_ND = load_task_vectors(settings.taskvecs)
        check_width(settings, vectors_ND)
        fields["router_input_dim"] = vectors_ND.shape[1]
    return fields


def check_width(settings: TrainSettings, vectors_ND: np.ndarray) -> None:
    """Raises InputError if the vectors of --taskvecs have another width than --taskvecs_dim."""
    if settings.taskvecs_dim not in (None, vectors_ND.shape[1]):
        raise InputError(
            f"--taskvecs_dim is {settings.taskvecs_dim}, but the vectors of {settings.taskvecs} have "
            f"{vectors_ND.shape[1]} dimensions; leave the flag out to use the file's"
        )


def changed_by_flags(settings: TrainSettings) -> dict:
    values = {name: getattr(settings, name) for name in (*ROUTING_FLAGS, *OF_EVERY_TRAINING)}
    return {name: value for name, value in values.items() if value is not None}


def changed_fields(settings: TrainSettings, config: Mixture) -> dict:
    """Returns the fields of a checkpoint's configuration that the flags change."""
    fields, kind = changed_by_flags(settings), settings.source_kind
    if not kind.reads_vectors:
        fields["route_source"] = settings.source
        if not kind.mixes and settings.expert_mixing is None:
            fields["expert_mixing"] = "outputs"
        redraws = settings.task_level_random_routing and not config.has_random_fixed_routes
        if not kind.is_stored or redraws:
            fields |= {"given_routes": None, "has_route_vectors": False}
    return fields


# ---- the model


def load_start(settings: TrainSettings, split: Split, routes: GivenRoutes | None = None):
    """Returns (model, tokenizer) to start from.

    A new model gets vectors for every task of the split; a checkpoint has its own. routes: those of
    --task_routes, which replace the routes of a checkpoint.
    """
    checkpoint = checkpoint_to_start_from(settings)
    if checkpoint is None:
        torch.manual_seed(settings.seed)
        config = start_config(settings, split, routes)
        model = new_model(settings.start, config, settings.init_eps, routes, settings.base_dtype)
        if settings.task_level_random_routing:
            model.task_routes.copy_(drawn_routes(settings, config))
        with problem_context("--model "):
            tokenizer = load_tokenizer(settings.model, config.vocab_size)
            check_first_token(model, tokenizer)
    else:
        model = load_checkpoint(checkpoint, settings)
        if routes is not None:
            model.use_given_routes(routes)
        elif settings.taskvecs and settings.do_train:
            log.info("note: --taskvecs is not read: %s has vectors", checkpoint)
        if not model.config.routes_by_task:
            names = model.config.task_names
            model.config.task_names = names + sorted(set(split.all) - set(names))
        tokenizer = load_tokenizer(checkpoint, model.config.vocab_size)
    if settings.do_train:
        model.config.note_training(split.train)
    if model.config.has_lora:
        train_base(model, settings.base_lr > 0)
        if checkpoint is None:  # else it refers to its base already, or contains it
            refer_to_start(model, settings.start)
    if model.router is not None:  # if it is frozen, straight-through routes run only the selected experts
        model.router.requires_grad_(settings.trains_router)
    if model.config.has_router:
        model.task_vectors.requires_grad_(settings.trains_task_vectors)
    return model, tokenizer


def check_first_token(model, tokenizer) -> None:
    """Raises InputError if answers are trained to start with another token than they are generated from.

    An mBART is trained to start with the last token that its tokenizer puts around a text.
    """
    if not model.config.is_encoder_decoder:
        return
    around = torch.tensor([tokenizer("")["input_ids"]])
    first = with_targets(model, {}, around)[0]["decoder_input_ids"][0, 0].item()
    if first != model.config.decoder_start_token_id:
        given = f"decoder_start_token_id is {model.config.decoder_start_token_id}"
        token = tokenizer.convert_ids_to_tokens(first)
        raise InputError(f"{given}, but answers are trained to start with {first} ({token}); set it to that")


def new_model(
    start: Start,
    config: Mixture,
    init_eps: float,
    routes: GivenRoutes | None = None,
    base_dtype: str | None = None,
):
    """Returns a new mixture with experts of the start's plain model, and its vectors or given routes."""
    with problem_context("--model "):
        plain = load_plain(start.model, getattr(torch, base_dtype or "float32"))
    model = mixture_of(plain, init_eps=init_eps, **config.mixture_fields())
    if start.vanilla:
        take_vanilla_weights(model, start.vanilla, init_eps)
    if model.config.has_router and start.vectors:
        vectors_ND = load_task_vectors(start.vectors)[1]
        model.task_vectors.weight.data.copy_(torch.from_numpy(vectors_ND))
        model.config.vectors_seen = seen_by(load_meta(start.vectors))
    elif model.config.has_router:
        model.config.random_vectors = list(config.task_names)  # `load_start` removes those that are trained
    elif routes is not None and config.source_kind.is_stored:
        model.use_given_routes(routes)
    return model


def refer_to_start(model, start: Start) -> None:
    """Notes the plain weights that a start makes experts of as the base of low-rank ones, if they can be."""
    vanilla, place = find_vanilla(start.vanilla) if start.vanilla else None, start.model
    is_plain = vanilla is None or isinstance(vanilla, SavedPlain)
    if not is_plain and (vanilla.config.num_experts > 1 or not weight_files(vanilla.place)):
        return  # it is in no file that transformers loads
    if vanilla and is_on_hub(start.vanilla):
        place = start.vanilla
    elif vanilla:
        place = (is_plain and vanilla.weights) or vanilla.place
    refer_to_base(model, place)


def take_vanilla_weights(model, source: str, init_eps: float) -> None:
    """Loads the weights of --vanilla_checkpoint into every expert, with noise. Raises InputError."""
    with problem_context("--vanilla_checkpoint "):
        vanilla = find_vanilla(source)
        if isinstance(vanilla, SavedPlain):
            content = read_plain_weights(vanilla.weights or vanilla.place)
        elif vanilla.config.has_lora and vanilla.config.num_experts > 1:  # the model that they share
            content = base_tensors(vanilla.load())
            content = {name.removeprefix("backbone."): tensor for name, tensor in content.items()}
        else:
            check_one_expert(
                vanilla, "give a plain model, a run with one expert, or one with low-rank experts"
            )
            content = vanilla.load().to_plain(dtype=torch.float32).state_dict()
    with problem_context(f"--vanilla_checkpoint {source}: "):
        load_base_weights(model, content, init_eps)
    if Path(source).is_file():  # of weights alone
        return
    is_shared = vanilla.config.num_experts > 1 and vanilla.config.base_model  # by experts, and as it was
    model.config.note_seen(None if is_shared else vanilla.config.weights_seen)


def drawn_routes(settings: TrainSettings, config: Mixture) -> torch.Tensor:
    """Returns routes per task (N, L, E) of --task_level_random_n random experts a layer."""
    size = (len(config.task_names), config.num_layers, config.num_experts)
    return random_task_routes(*size, n=settings.task_level_random_n, seed=settings.seed)


def load_checkpoint(checkpoint: Path, settings: TrainSettings):
    """Returns a saved mixture with the flags applied that may change between stages."""
    model = load_mixture(checkpoint)
    for field, value in changed_by_flags(settings).items():
        setattr(model.config, field, value)
    draws, is_drawn = settings.task_level_random_routing, model.config.has_random_fixed_routes
    if draws and not is_drawn:
        model.use_routes("fixed", drawn_routes(settings, model.config))
    elif not (settings.source_kind.reads_vectors or settings.source_kind.is_stored):
        model.use_routes(settings.source)
    elif draws:  # routes are drawn once, so those of the checkpoint are kept
        counts = (model.task_routes > 0).sum(-1).unique().tolist()
        if counts != [settings.task_level_random_n]:
            raise InputError(
                f"--task_level_random_n is {settings.task_level_random_n}, but the routes in {checkpoint} "
                f"have {' or '.join(map(str, counts))} experts per layer; give the same number"
            )
    return model
