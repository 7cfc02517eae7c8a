"""The model a run starts from: a plain BART made into experts, or a checkpoint; and its task vectors."""

from pathlib import Path

import torch
from transformers import AutoTokenizer

from dataloader.errors import InputError, fault_context, in_brief
from dataloader.task_splits import Split
from routing_moe.checkpoints.folder import find_checkpoint
from routing_moe.config.settings import Settings
from routing_moe.model.conversion import load_plain_weights
from routing_moe.model.loading import load_bart, load_routing_bart, load_vanilla_checkpoint
from routing_moe.model.modeling import RoutingBartForConditionalGeneration
from routing_moe.model.route_sources import random_task_routes
from routing_moe.model.task_vectors import load_meta, load_task_vectors, seen_by

# What the architecture flags mean when they are not given and a model is made from a plain BART.
ARCHITECTURE_DEFAULTS = {
    "num_experts": 3,
    "route_source": "learned",
    "expert_mixing": "outputs",
    "router_nn_type": "linear_layer_specific",
    "router_hidden_dim": 64,
    "router_mode": "gumbel_softmax_st",
    "router_top_k": 2,
    "taskvecs_dim": 768,
    "encoder_vanilla_layers": [],
    "decoder_vanilla_layers": [],
}
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
ROUTING_FLAGS = ("expert_mixing", "router_mode", "router_top_k")  # may change from one stage to the next


def architecture(settings: Settings) -> dict:
    """RoutingBartConfig fields that the flags ask for, defaults filled in."""
    chosen = {
        name: default if getattr(settings, name) is None else getattr(settings, name)
        for name, default in ARCHITECTURE_DEFAULTS.items()
    }
    chosen["router_input_dim"] = chosen.pop("taskvecs_dim")
    return chosen | {"exploration_epsilon": settings.exploration_epsilon}


def checkpoint_to_resume(settings: Settings) -> Path | None:
    """The run's own last checkpoint, if it is to be resumed and has one."""
    resumes = settings.do_train and settings.resume
    return find_checkpoint(Path(settings.output_dir) / "last") if resumes else None


def checkpoint_to_start_from(settings: Settings) -> Path | None:
    """The checkpoint folder that the flags name, or None for a start from a plain BART or a missing one."""
    if last := checkpoint_to_resume(settings):
        return last
    if settings.do_train and settings.initialize_from_vanilla:
        return None
    return find_checkpoint(settings.checkpoint or Path(settings.output_dir) / settings.checkpoint_name)


def load_start(settings: Settings, split: Split):
    """(model, tokenizer) to start from. A new model gets vectors for every task of the split; a checkpoint
    has its own (`start_checks.checkpoint_faults` finds what it lacks), or needs none.

    Raises InputError when the weights, vectors or tokenizer do not fit together.
    """
    checkpoint = checkpoint_to_start_from(settings)
    if checkpoint is None:
        model = model_from_bart(settings, list(split.all))
        with fault_context("--model "):
            tokenizer = load_tokenizer(settings.model, model.config.vocab_size)
    else:
        model = load_checkpoint(checkpoint, settings)
        if not model.config.routes_by_task:
            names = model.config.task_names
            model.config.task_names = names + sorted(set(split.all) - set(names))
        tokenizer = load_tokenizer(checkpoint, model.config.vocab_size)
    if settings.do_train:
        model.config.random_vectors = sorted(set(model.config.random_vectors) - set(split.train))
        model.config.trained_tasks = sorted(set(model.config.trained_tasks) | set(split.train))
    freeze(model, settings)
    return model, tokenizer


def freeze(model, settings: Settings) -> None:
    """Switch off the gradients of router and task vectors where their learning rate is 0 or the flag says so.

    What is frozen costs nothing: with a frozen router, straight-through routes run only what they choose.
    """
    if model.config.has_router:
        model.router.requires_grad_(settings.trains_router)
        model.task_vectors.requires_grad_(settings.trains_task_vectors)


def load_tokenizer(source: str | Path, vocab_size: int):
    """The tokenizer in a folder or of a hub name, for so many embeddings. Raises InputError, naming it."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:  # the library's and the file formats' own ways to fail
        raise InputError(f"{source}: no tokenizer can be loaded from there ({in_brief(error)})") from None
    if len(tokenizer) <= len(set(tokenizer.all_special_tokens)):  # what the library makes of no files at all
        raise InputError(f"{source}: has no tokenizer files (tokenizer.json, or vocab.json and merges.txt)")
    if len(tokenizer) > vocab_size:
        raise InputError(
            f"{source}: its tokenizer has {len(tokenizer)} tokens, more than the {vocab_size} embeddings of "
            "its model; they do not belong together"
        )
    return tokenizer


def load_start_tokenizer(place: str | Path, model: str, vocab_size: int):
    """The tokenizer of a model in `place`, a folder or hub name; that of `--model` if a folder keeps none."""
    if keeps_tokenizer(place):
        return load_tokenizer(place, vocab_size)
    with fault_context("--model "):
        return load_tokenizer(model, vocab_size)


def keeps_tokenizer(place: str | Path) -> bool:
    """Whether a tokenizer is in the folder; what is no folder is a hub name, and has one."""
    is_there = any((Path(place) / name).is_file() for name in TOKENIZER_FILES)
    return is_there or not Path(place).is_dir()


def model_from_bart(settings: Settings, tasks: list[str]) -> RoutingBartForConditionalGeneration:
    """Experts from `--model`'s weights (or `--vanilla_checkpoint`'s), vectors from `--taskvecs` or random."""
    fields, names, vectors = architecture(settings), sorted(tasks), None
    if settings.taskvecs:
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
        load_vanilla_weights(model, settings.vanilla_checkpoint, settings.init_eps)
    if vectors is not None:
        model.task_vectors.weight.data.copy_(torch.from_numpy(vectors))
        model.config.vectors_seen = seen_by(load_meta(settings.taskvecs))
    elif model.config.has_router:
        model.config.random_vectors = list(names)  # all, until it is known which are trained on
    if model.config.route_source == "fixed":
        model.task_routes.copy_(task_level_random_routes(model.config, settings))
    return model


def task_level_random_routes(config, settings: Settings) -> torch.Tensor:
    """(N, L, E), a function of the flags alone."""
    size = (len(config.task_names), config.num_layers, config.num_experts)
    return random_task_routes(*size, n=settings.task_level_random_n, seed=settings.seed)


def load_vanilla_weights(model, path: str, init_eps: float, flag: str = "vanilla_checkpoint") -> None:
    with fault_context(f"--{flag} "):
        weights = load_vanilla_checkpoint(path)
    with fault_context(f"--{flag} {path}: "):
        load_plain_weights(model, weights, init_eps)


def load_checkpoint(checkpoint: Path, settings: Settings) -> RoutingBartForConditionalGeneration:
    """A saved routing BART, with the flags that may change between stages applied. Raises InputError."""
    model = load_routing_bart(RoutingBartForConditionalGeneration, checkpoint)
    for field in ROUTING_FLAGS:
        if getattr(settings, field) is not None:
            setattr(model.config, field, getattr(settings, field))
    model.config.exploration_epsilon = settings.exploration_epsilon
    if settings.route_source not in (None, model.config.route_source):
        drawn = task_level_random_routes(model.config, settings) if settings.route_source == "fixed" else None
        model.use_routes(settings.route_source, drawn)
    elif settings.route_source == "fixed":  # drawn once: the checkpoint's are kept
        counts = (model.task_routes > 0).sum(-1).unique().tolist()
        if counts != [settings.task_level_random_n]:
            raise InputError(
                f"--task_level_random_n is {settings.task_level_random_n}, but the routes in {checkpoint} "
                f"have {' or '.join(map(str, counts))} experts a layer; give what they were drawn with"
            )
    return model
