"""Writes a route of low-rank experts as an adapter of peft."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from routing_moe.config.assemble import ADAPTER_FILE, WEIGHTS_FILE
from routing_moe.io.hub import is_hub_name
from routing_moe.model.base import is_unchanged, place_from


@torch.no_grad()
def write_adapter(model, routes_LE: Tensor, folder: Path, base: str | None) -> dict:
    """Writes an adapter to a folder; returns its configuration. base: how it names its base.

    It has rank K r if the route mixes up to K experts in a layer; with mixed factors it has rank r.
    """
    config = model.config
    if not config.has_lora:
        raise InputError(f"experts of kind {config.expert_kind!r} are no adapter; only low-rank experts are")
    if (folder / ADAPTER_FILE).exists():
        raise InputError(f"{folder} has a file {ADAPTER_FILE} already; name a new folder")
    weights_LE, tensors, maps = routes_LE.abs().cpu(), {}, []
    most = max(1, int((weights_LE[config.routed_rows] != 0).sum(dim=1).max()))
    for layer in model.lora_layers:
        used_K = weights_LE[layer.rows][0].topk(most).indices.to(model.device)
        for name, linear in layer.linear_maps.items():
            A, B = linear.factors_along(routes_LE[layer.rows].to(model.device), used_K)
            maps.append(f"{layer.name}.{name}")
            tensors[f"base_model.model.{maps[-1]}.lora_A.weight"] = A.cpu().contiguous()
            tensors[f"base_model.model.{maps[-1]}.lora_B.weight"] = B.T.cpu().contiguous()
    name, _, revision = base.partition("@") if base and is_hub_name(base) else (base, "", "")
    content = {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM" if config.is_encoder_decoder else "CAUSAL_LM",
        "base_model_name_or_path": name,
        "revision": revision or None,
        "r": len(A),
        "lora_alpha": config.lora_scale * len(A),
        "lora_dropout": config.lora_dropout,
        "target_modules": maps,  # in full, because layers may be vanilla
        "bias": "none",
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    write_text(folder / ADAPTER_FILE, json.dumps(content, indent=1))  # the last: without it there is none
    return content


def name_of_base(model, folder: Path) -> str | None:
    """Returns how an adapter in a folder names the base of a model; None: it comes from no known place."""
    if model.config.base_model is not None and not is_unchanged(model):
        raise InputError(
            "the base was trained with the experts: save model.to_plain of zeros, and name it as base"
        )
    return place_from(folder, model.config.base_model)
