"""Merges the checkpoints of the two training stages: routes of a trained run, new experts of a plain model.

The routes are those of a router, or fixed ones. `merge.json` describes the inputs of the merge.
"""

import dataclasses
import json
from pathlib import Path

from dataloader.checksums import sha256
from dataloader.errors import InputError, problem_context
from dataloader.jsonfile import load_json_object
from routing_moe.checkpoints.find import SavedMixture, SavedPlain, find_mixture, find_vanilla, weight_files
from routing_moe.checkpoints.folder import find_checkpoint, save_checkpoint
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.config.assemble import MergeSettings
from routing_moe.config.flags import NAME
from routing_moe.config.shared import BART_BASE, Start
from routing_moe.io.files import unwritable
from routing_moe.io.hub import known_folder
from routing_moe.io.run_folder import describe_run, load_run_settings

MERGE_FILE = "merge.json"
OF_TRAINING = ("best", "last")  # checkpoints that stage 2 writes


def check_merge(settings: MergeSettings) -> tuple[MergeSettings, SavedMixture]:
    """Returns the settings with a model, and the checkpoint of the routes. Raises InputError."""
    with problem_context("--routes_from "):
        routes = find_mixture(settings.routes_from, settings.routes_checkpoint_name, "routes_checkpoint_name")
        config = routes.config
        settings = dataclasses.replace(
            settings, model=settings.model or recorded_model(routes.place) or BART_BASE
        )
    with problem_context("--model "):
        plain = SavedPlain(settings.model).config
    if settings.vanilla_checkpoint:
        with problem_context("--vanilla_checkpoint "):
            find_vanilla(settings.vanilla_checkpoint)
    check_target(settings)
    if not config.routes_by_task or config.num_experts == 1:
        source = "1 expert per layer" if config.num_experts == 1 else f"{config.route_source} routes"
        raise InputError(f"--routes_from {routes.place} has {source}: tasks have no routes to keep")
    depths, routed = plain.depths, config.depths
    if depths != routed:
        raise InputError(
            f"--model {settings.model} has {depths[0]}+{depths[1]} layers (encoder+decoder), but the routes "
            f"of {routes.place} are of {routed[0]}+{routed[1]}; they must be equal"
        )
    return settings, routes


def recorded_model(checkpoint: Path) -> str | None:
    """Returns the plain model that a checkpoint's run or its merge started from, None if unknown."""
    merged = checkpoint / MERGE_FILE
    if merged.is_file():
        return (load_json_object(merged, "what a merge was made of").get("settings") or {}).get("model")
    # A shared run has its run.json with the weights, another one above them.
    saved = load_run_settings(checkpoint) or load_run_settings(checkpoint.parent)
    if saved is None or saved.get("initialize_from_vanilla"):
        return saved and saved.get("model")
    earlier = known_folder(saved.get("checkpoint") or checkpoint.parent / saved.get("checkpoint_name", ""))
    return recorded_model(earlier) if earlier != checkpoint else None


def check_target(settings: MergeSettings) -> None:
    """Raises InputError if the target cannot be written to, or exists already."""
    name, folder = settings.checkpoint_name, Path(settings.output_dir)
    if not NAME.holds(name) or name in ("", *OF_TRAINING):
        raise InputError(f"--checkpoint_name is {name!r}; name a new folder in --output_dir, such as init")
    if reason := unwritable(folder):
        raise InputError(f"--output_dir {reason}")
    find_checkpoint(settings.target)  # restores the checkpoint after an interrupted write
    if settings.target.exists() and not settings.keep_existing:
        raise InputError(
            f"--output_dir {folder}: {settings.target} exists already; delete it to merge again, or choose "
            "another --checkpoint_name"
        )


def merge(settings: MergeSettings, routes: SavedMixture):
    """Returns (model, tokenizer) for stage 2. Raises InputError if files are broken or do not match."""
    import torch  # takes seconds

    from routing_moe.checkpoints.start import refer_to_start, take_vanilla_weights
    from routing_moe.model.mixtures import load_plain, with_fresh_experts

    with problem_context("--routes_from "):
        trained = routes.load()
    with problem_context("--model "):
        plain = load_plain(settings.model, trained.dtype)
        tokenizer = load_tokenizer(settings.model, plain.config.vocab_size)
    torch.manual_seed(settings.seed)
    model = with_fresh_experts(trained, plain, settings.init_eps)
    if settings.vanilla_checkpoint:
        take_vanilla_weights(model, settings.vanilla_checkpoint, settings.init_eps)
    if model.config.has_lora:
        refer_to_start(model, Start(settings.model, vanilla=settings.vanilla_checkpoint))
    return model, tokenizer


def made_of(settings: MergeSettings, routes: SavedMixture) -> dict:
    """Returns what determines the merged weights: SHA-256 of the input files, and the noise."""
    sources = {"routes": routes.files(), "model": weight_files(settings.model)}
    if settings.vanilla_checkpoint:
        sources["vanilla_checkpoint"] = find_vanilla(settings.vanilla_checkpoint).files()
    hashed = {name: {file.name: sha256(file) for file in files} for name, files in sources.items()}
    noise = {} if routes.config.has_lora else {"init_eps": settings.init_eps}
    return hashed | noise | {"seed": settings.seed}


def check_made_of(file: Path, now: dict) -> None:
    """Raises InputError unless the checkpoint with this file was made of the same sources; else says so."""
    before, checkpoint = None, file.parent
    if file.is_file():
        before = load_json_object(file, "what a checkpoint was made of").get("made_of")
    before = before if isinstance(before, dict) else {}
    if different := [name for name in now | before if now.get(name) != before.get(name)]:
        raise InputError(
            f"--keep_existing: {checkpoint} was made from other sources ({', '.join(different)}); "
            "delete it and what was trained from it, or choose another --output_dir"
        )
    print(f"{checkpoint} exists already, made from the same sources")


def write_merged(settings: MergeSettings, routes: SavedMixture, model, tokenizer, command: list[str]) -> None:
    """Writes the checkpoint and `merge.json`, atomically; prints where each part comes from."""
    described = describe_run(dataclasses.asdict(settings), command) | {"made_of": made_of(settings, routes)}
    keep = {MERGE_FILE: json.dumps(described, indent=1).encode()}
    save_checkpoint(model, tokenizer, settings.target, keep=keep)
    config = model.config
    kept = f"router ({config.router_nn_type}) and task vectors"
    if not config.has_router:
        kept = f"fixed routes ({config.given_routes or 'drawn at random'})"
    start, layers = settings.vanilla_checkpoint or settings.model, len(config.routed_layers)
    noise = "" if config.has_lora else f", noise {settings.init_eps:g} (seed {settings.seed})"
    print(f"{kept} of {len(config.task_names)} tasks: from {routes.place}")
    print(f"{config.experts_described} in {layers} layers: from {start}{noise}")
    print(f"written to {settings.target}")
    if (Path(settings.output_dir) / "run.json").is_file():
        other = f"train stage 2 in another folder, with --checkpoint {settings.target}"
        print(f"note: {settings.output_dir} holds a run already; {other}")
