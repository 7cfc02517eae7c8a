"""Loads checkpoints of the published code (INK-USC/CrossTaskMoE)."""

import re
from pathlib import Path

import torch

from dataloader.errors import InputError, in_brief
from dataloader.jsonfile import load_json_object
from routing_moe.model.configuration import RoutingBartConfig
from routing_moe.model.loading import check_finite, unfilled_model
from routing_moe.model.task_vectors import UNKNOWN, load_task_vectors

# Names of router parameters in the published code (after "router.model.") and in this one.
UPSTREAM_ROUTER_NAMES = (
    (r"^router_units\.(\d+)\.linear1\.", r"units.\1.hidden."),
    (r"^router_units\.(\d+)\.linear2\.", r"units.\1.output."),
    (r"^linear1\.", "hidden."),
    (r"^linear2\.", "output."),
    (r"^pos_embed\.", "layer_embedding."),
    (r"^layer_specific_proj\.", "layer_projection."),
    (r"^(rnn|transformer)\.", "mixer."),
    (r"^proj\.", "output."),
)
EXPECTED = "the configuration of a run of the published code"
GENERATION_SETTINGS = (
    *("no_repeat_ngram_size", "min_length", "length_penalty"),
    *("repetition_penalty", "forced_bos_token_id"),
)


def from_upstream(cls, run_dir: str | Path, checkpoint_name: str = "best"):
    """Returns the model of a run of the published code in eval mode."""
    config_path, weights_path = Path(run_dir) / "config.json", Path(run_dir) / checkpoint_name / "model.pt"
    if not weights_path.is_file():
        raise InputError(f"{weights_path}: not found; a run of the published code has it")
    try:
        model = unfilled_model(cls, published_config(run_dir, checkpoint_name))
        state = torch.load(weights_path, map_location="cpu", weights_only=True)
        renamed = {upstream_name(name): tensor for name, tensor in state.items()}
        if not model.config.has_router:  # a single expert needs no router
            renamed = {name: tensor for name, tensor in renamed.items() if not name.startswith("router.")}
        renamed["lm_head.weight"] = renamed["model.shared.weight"]
        check_finite(state, weights_path)
        if model.config.has_router:
            vectors_ND = load_task_vectors(weights_path.parent)[1]
            renamed["task_vectors.weight"] = torch.from_numpy(vectors_ND)
        model.load_state_dict(renamed)
    except InputError:
        raise
    except Exception as error:  # torch and transformers raise many types of errors
        raise InputError(
            f"{weights_path}: not the weights of a run with this {config_path} ({in_brief(error)})"
        ) from None
    # config.json includes the generation settings of the BART (bart-base: no repeated 3-grams).
    published = load_json_object(config_path, EXPECTED)
    model.generation_config.update(**{k: v for k, v in published.items() if k in GENERATION_SETTINGS})
    return model.eval()


def published_config(run_dir: str | Path, checkpoint_name: str) -> RoutingBartConfig:
    """Returns the configuration of a run of the published code. Raises InputError that names the file."""
    path = Path(run_dir) / "config.json"
    published = load_json_object(path, EXPECTED)
    if "router_block_num" not in published:
        raise InputError(f"{path}: lacks router_block_num; a run of the published code has it")
    names, vectors_ND = load_task_vectors(Path(run_dir) / checkpoint_name)
    try:
        return RoutingBartConfig.of(published_fields(published, names, vectors_ND.shape[1]), path)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: not a valid configuration ({in_brief(error)})") from None


def published_fields(published: dict, task_names: list[str], vector_dim: int) -> dict:
    """Returns the fields of a RoutingBartConfig from a config.json of the published code."""
    kept = ("router_nn_type", "router_mode", "router_hidden_dim")
    fields = {k: v for k, v in published.items() if k in kept or not k.startswith("router_")}
    for side in ("encoder_vanilla_layers", "decoder_vanilla_layers"):
        layers = fields.get(side) or ""  # written as text, separated by commas
        fields[side] = [int(i) for i in layers.split(",") if i.strip()] if isinstance(layers, str) else layers
    sizes = {"num_experts": published["router_block_num"], "router_input_dim": vector_dim}
    seen = dict.fromkeys(task_names, UNKNOWN)
    return fields | sizes | {"task_names": task_names, "weights_seen": seen}


def upstream_name(name: str) -> str:
    """Returns our name for a parameter of the published code."""
    if not name.startswith("router."):
        return name.replace(".blocks.", ".experts.")
    part = name.removeprefix("router.model.")
    for published, ours in UPSTREAM_ROUTER_NAMES:
        part = re.sub(published, ours, part)
    return f"router.{part}"
