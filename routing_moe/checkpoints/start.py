"""Loads the model and tokenizer that a run starts from: a plain BART made into experts, or a checkpoint."""

from pathlib import Path

import torch
from transformers import AutoTokenizer

from dataloader.errors import InputError, fault_context, in_brief
from dataloader.task_splits import Split
from routing_moe.checkpoints.find import SavedBart, checkpoint_to_start_from, find_vanilla
from routing_moe.checkpoints.tokenizer_files import NO_FILES, check_size, keeps_tokenizer
from routing_moe.checkpoints.vanilla import load_vanilla_weights
from routing_moe.config.train import ROUTING_FLAGS, TrainSettings
from routing_moe.io.hub import local_folder
from routing_moe.model.given_routes import GivenRoutes
from routing_moe.model.loading import load_bart, load_routing_bart, load_vanilla_checkpoint
from routing_moe.model.modeling import RoutingBartForConditionalGeneration
from routing_moe.model.route_fit import RouteFit, fit_router
from routing_moe.model.route_sources import random_task_routes
from routing_moe.model.task_vectors import load_meta, load_task_vectors, seen_by


def load_start(settings: TrainSettings, split: Split, routes: GivenRoutes | None = None):
    """Returns (model, tokenizer) to start from.

    A new model gets vectors for every task of the split; a checkpoint has its own, if it needs them
    (`start_checks.checkpoint_faults` reports missing ones). routes: those of --task_routes, which replace the
    routes of a checkpoint; None: a checkpoint keeps its own.
    Raises InputError if weights, vectors and tokenizer do not match.
    """
    checkpoint = checkpoint_to_start_from(settings)
    if checkpoint is None:
        model = model_from_bart(settings, list(split.all), routes)
        with fault_context("--model "):
            tokenizer = load_tokenizer(settings.model, model.config.vocab_size)
    else:
        model = load_checkpoint(checkpoint, settings)
        if routes is not None:
            model.use_given_routes(routes)
        if not model.config.routes_by_task:
            names = model.config.task_names
            model.config.task_names = names + sorted(set(split.all) - set(names))
        tokenizer = load_tokenizer(checkpoint, model.config.vocab_size)
    if settings.do_train:
        model.config.random_vectors = sorted(set(model.config.random_vectors) - set(split.train))
        model.config.trained_tasks = sorted(set(model.config.trained_tasks) | set(split.train))
    freeze(model, settings)
    return model, tokenizer


def start_router(model, routes: GivenRoutes, settings: TrainSettings) -> RouteFit:
    """Fits a new router to the routes at --initial_tau, and task vectors that are random and not frozen.

    Vectors of --taskvecs stay as they are. Fitted vectors no longer count as random.
    """
    config, fits_vectors = model.config, not settings.taskvecs and settings.trains_task_vectors
    routes_NLE = torch.from_numpy(
        routes.matrices(config.encoder_layers, config.decoder_layers, config.num_experts, config.routed_rows)
    )
    fit = fit_router(model, routes.tasks, routes_NLE, settings.initial_tau, fits_vectors)
    if fits_vectors:
        config.random_vectors = sorted(set(config.random_vectors) - set(routes.tasks))
    return fit


def freeze(model, settings: TrainSettings) -> None:
    """Freezes router and task vectors if their learning rate is 0 or the flag says so.

    Frozen parts save time: with a frozen router, straight-through routes run only the selected experts.
    """
    if model.config.has_router:
        model.router.requires_grad_(settings.trains_router)
        model.task_vectors.requires_grad_(settings.trains_task_vectors)


def load_tokenizer(source: str | Path, vocab_size: int):
    """Returns the tokenizer of a folder or hub name.

    vocab_size: number of token embeddings of the model, an upper bound of the number of tokens.
    Raises InputError that names the source.
    """
    folder = local_folder(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # transformers raises many types of errors
        raise InputError(f"{source}: no tokenizer can be loaded from there ({in_brief(error)})") from None
    if len(tokenizer) <= len(set(tokenizer.all_special_tokens)):  # transformers' result without any files
        raise InputError(f"{source} {NO_FILES}")
    check_size(source, len(tokenizer), vocab_size)
    return tokenizer


def load_start_tokenizer(place: str | Path, model: str, vocab_size: int):
    """Returns the tokenizer of a model in `place` (a folder or hub name), or of `model` if there is none.

    Raises InputError that names the source; `model` is the value of --model.
    """
    if keeps_tokenizer(place):
        return load_tokenizer(place, vocab_size)
    with fault_context("--model "):
        return load_tokenizer(model, vocab_size)


def model_from_bart(
    settings: TrainSettings, tasks: list[str], routes: GivenRoutes | None = None
) -> RoutingBartForConditionalGeneration:
    """Returns a new model: experts from --model or --vanilla_checkpoint, vectors from --taskvecs or random.

    tasks: the tasks to draw random vectors for. routes: those of --task_routes. Raises InputError that names
    the flag and the source.
    """
    fields, names, vectors = settings.architecture(), sorted(tasks), None
    if routes is not None and settings.num_experts is None:
        fields["num_experts"] = routes.num_experts
    if settings.taskvecs and settings.route_source != "fixed":
        names, vectors = load_task_vectors(settings.taskvecs)
        fields["router_input_dim"] = vectors.shape[1]
    torch.manual_seed(settings.seed)
    with fault_context("--model "):
        bart = load_bart(settings.model)
    num_experts = fields.pop("num_experts")
    model = RoutingBartForConditionalGeneration.from_bart(
        bart, num_experts, settings.init_eps, task_names=names, **fields
    )
    if settings.vanilla_checkpoint:
        take_vanilla_weights(model, settings.vanilla_checkpoint, settings.init_eps)
    if vectors is not None:
        model.task_vectors.weight.data.copy_(torch.from_numpy(vectors))
        model.config.vectors_seen = seen_by(load_meta(settings.taskvecs))
    elif model.config.has_router:
        model.config.random_vectors = list(names)  # `load_start` removes those that are trained
    if settings.task_level_random_routing:
        model.task_routes.copy_(task_level_random_routes(model.config, settings))
    elif settings.route_source == "fixed":
        model.use_given_routes(routes)
    return model


def take_vanilla_weights(model, place: str, init_eps: float) -> None:
    """Loads the weights of --vanilla_checkpoint into every expert, with noise. Raises InputError."""
    with fault_context("--vanilla_checkpoint "):
        found = find_vanilla(place)
        if isinstance(found, SavedBart):
            content = load_vanilla_checkpoint(found.weights or local_folder(found.source))
        else:
            dense = found.load()
            content = dense.to_bart(torch.ones(dense.config.num_layers, 1)).state_dict()
    load_vanilla_weights(model, place, init_eps, content=content)


def task_level_random_routes(config, settings: TrainSettings) -> torch.Tensor:
    """Returns random routes per task (N, L, E), which depend on the flags only."""
    size = (len(config.task_names), config.num_layers, config.num_experts)
    return random_task_routes(*size, n=settings.task_level_random_n, seed=settings.seed)


def load_checkpoint(checkpoint: Path, settings: TrainSettings) -> RoutingBartForConditionalGeneration:
    """Returns a saved routing BART with the flags applied that may change between stages.

    Raises InputError.
    """
    model = load_routing_bart(RoutingBartForConditionalGeneration, checkpoint)
    for field in ROUTING_FLAGS:
        if getattr(settings, field) is not None:
            setattr(model.config, field, getattr(settings, field))
    model.config.exploration_epsilon = settings.exploration_epsilon
    draws, is_drawn = settings.task_level_random_routing, model.config.routes_are_drawn
    if draws and not is_drawn:
        model.use_routes("fixed", task_level_random_routes(model.config, settings))
    elif settings.route_source in ("average", "random"):
        model.use_routes(settings.route_source)
    elif draws:  # routes are drawn once, so those of the checkpoint are kept
        counts = (model.task_routes > 0).sum(-1).unique().tolist()
        if counts != [settings.task_level_random_n]:
            raise InputError(
                f"--task_level_random_n is {settings.task_level_random_n}, but the routes in {checkpoint} "
                f"have {' or '.join(map(str, counts))} experts per layer; give the same number"
            )
    return model
