"""Between the two stages of training: a trained run's routes and a fresh BART's experts in one checkpoint.

What is merged is found and checked before a model is loaded; what it was made of is kept as `merge.json`.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from dataloader.errors import Faults, InputError, fault_context
from dataloader.jsonfile import load_json_object
from routing_moe.checkpoints.find import SavedMixture, find_mixture, sha256, weight_files
from routing_moe.checkpoints.folder import find_checkpoint
from routing_moe.checkpoints.start import load_tokenizer, load_vanilla_weights
from routing_moe.config.ranges import range_faults
from routing_moe.io.files import replacing_directory, unwritable, write_text
from routing_moe.io.run_folder import describe_run
from routing_moe.model.conversion import with_fresh_experts
from routing_moe.model.loading import load_bart, load_bart_config
from routing_moe.model.modeling import RoutingBartForConditionalGeneration

MERGE_FILE = "merge.json"
OF_TRAINING = ("best", "last")  # checkpoints that stage 2 writes itself


@dataclass(frozen=True)
class MergeSettings:
    """One field per flag of `python -m routing_moe.cli.merge`, which documents them."""

    routes_from: str
    routes_checkpoint_name: str | None
    model: str
    vanilla_checkpoint: str | None
    init_eps: float
    seed: int
    output_dir: str
    checkpoint_name: str
    keep_existing: bool

    @property
    def target(self) -> Path:
        return Path(self.output_dir) / self.checkpoint_name


# ---- checks


def check_merge(settings: MergeSettings) -> SavedMixture:
    """Find the routes and check all that the settings name. Raises one InputError with all faults."""
    faults = Faults(range_faults(settings))
    routes = faults.of(find_routes, settings.routes_from, settings.routes_checkpoint_name, flag="routes_from")
    bart = faults.of(load_bart_config, settings.model, flag="model")
    if routes and bart:
        depths, routed = ((c.encoder_layers, c.decoder_layers) for c in (bart, routes.config))
        if depths != routed:
            faults.append(
                f"--model {settings.model} has {depths[0]}+{depths[1]} layers (encoder+decoder), but the "
                f"router of {routes.checkpoint} routes {routed[0]}+{routed[1]}; they must be as many"
            )
    if settings.vanilla_checkpoint and not Path(settings.vanilla_checkpoint).exists():
        faults.append(f"--vanilla_checkpoint {settings.vanilla_checkpoint}: not found")
    faults += target_faults(settings)
    if faults:
        raise InputError(faults)
    return routes


def find_routes(routes_from: str, checkpoint_name: str | None) -> SavedMixture:
    """The mixture whose routes are kept. Raises InputError if they come from elsewhere than a router."""
    routes = find_mixture(routes_from, checkpoint_name, "routes_checkpoint_name")
    if routes.config.num_experts == 1:
        raise InputError(f"{routes.checkpoint} has 1 expert per layer: there is no router to keep")
    if not routes.config.has_router:
        raise InputError(
            f"{routes.checkpoint} has {routes.config.route_source} routes: there is no router to keep"
        )
    return routes


def target_faults(settings: MergeSettings) -> list[str]:
    """A place that cannot be written to, or that something has already."""
    name, folder = settings.checkpoint_name, Path(settings.output_dir)
    if Path(name).name != name or name in ("", ".."):
        return [f"--checkpoint_name is {name!r}; it must be the name of a folder in --output_dir"]
    if name in OF_TRAINING:
        return [f"--checkpoint_name is {name!r}, which training writes itself; give another, such as init"]
    if reason := unwritable(folder):
        return [f"--output_dir {reason}"]
    find_checkpoint(settings.target)  # puts back what an interrupted write left
    if settings.target.exists() and not settings.keep_existing:
        return [
            f"--output_dir {folder}: {settings.target} is there already; delete it to merge anew, or give "
            "another --checkpoint_name"
        ]
    return []


# ---- merging


def merge(
    settings: MergeSettings, routes: SavedMixture
) -> tuple[RoutingBartForConditionalGeneration, object]:
    """(model, tokenizer) for stage 2. Raises InputError when files are broken or do not fit together."""
    with fault_context("--routes_from "):
        trained = routes.load()
    with fault_context("--model "):
        bart = load_bart(settings.model)
        tokenizer = load_tokenizer(settings.model, bart.config.vocab_size)
    torch.manual_seed(settings.seed)
    model = with_fresh_experts(trained, bart, settings.init_eps)
    if settings.vanilla_checkpoint:
        load_vanilla_weights(model, settings.vanilla_checkpoint, settings.init_eps)
    return model, tokenizer


def write_merged(settings: MergeSettings, routes: SavedMixture, model, tokenizer, command=None) -> None:
    """Write the checkpoint and what it was made of, at once or not at all; command as in `describe_run`."""
    description = describe_run(dataclasses.asdict(settings), command) | {"made_of": made_of(settings, routes)}
    with replacing_directory(settings.target) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_text(folder / MERGE_FILE, json.dumps(description, indent=1))


def made_of(settings: MergeSettings, routes: SavedMixture) -> dict:
    """What decides the merged weights: SHA-256 of the files they are from, and the noise."""
    sources = {"routes": routes.files(), "model": weight_files(settings.model)}
    if settings.vanilla_checkpoint:
        sources["vanilla_checkpoint"] = weight_files(settings.vanilla_checkpoint)
    hashed = {name: {file.name: sha256(file) for file in files} for name, files in sources.items()}
    return hashed | {"init_eps": settings.init_eps, "seed": settings.seed}


def differences(settings: MergeSettings, routes: SavedMixture) -> list[str]:
    """In what the checkpoint that is there already is not made of the same as this merge would be."""
    path, kept = settings.target / MERGE_FILE, None
    if path.is_file():
        kept = load_json_object(path, "what a merge was made of").get("made_of")
    kept, wanted = kept if isinstance(kept, dict) else {}, made_of(settings, routes)
    return [name for name in wanted | kept if name not in kept or wanted.get(name) != kept[name]]


# ---- what is told


def summary(settings: MergeSettings, routes: SavedMixture, model, tokenizer) -> str:
    """What came from where, one part a line."""
    config = model.config
    router = f"{config.router_nn_type}, {len(model.router.state_dict())} tensors"
    depths = f"{config.encoder_layers}+{config.decoder_layers}"
    routed = len(config.routed_rows)
    layers = f"each of {depths} layers" if routed == config.num_layers else f"{routed} of {depths} layers"
    noise = f"noise {settings.init_eps:g} (seed {settings.seed})"
    lines = [
        f"router ({router}) and {len(config.task_names)} task vectors of width {config.router_input_dim}: "
        f"from {routes.checkpoint}",
        f"{config.num_experts} experts in {layers}, embeddings: from "
        f"{settings.vanilla_checkpoint or settings.model}, {noise}",
        f"generation settings, tokenizer ({len(tokenizer)} tokens): from {settings.model}",
        *other_tokenizer(routes, tokenizer),
        f"written to {settings.target}",
    ]
    if (Path(settings.output_dir) / "run.json").is_file():
        lines.append(
            f"note: {settings.output_dir} holds a run already; train stage 2 in a folder of its own, with "
            f"--checkpoint {settings.target}"
        )
    return "\n".join(lines)


def other_tokenizer(routes: SavedMixture, tokenizer) -> list[str]:
    """A remark if the run's tokenizer is known and another one."""
    if routes.is_published:  # such runs keep none
        return []
    try:
        of_run = load_tokenizer(routes.checkpoint, routes.config.vocab_size)
    except InputError:
        return []
    if of_run.get_vocab() == tokenizer.get_vocab():
        return []
    return [
        f"note: {routes.checkpoint} has another tokenizer ({len(of_run)} tokens); router and task vectors do "
        "not depend on it"
    ]
