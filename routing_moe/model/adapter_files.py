"""Writes a route of low-rank experts as an adapter of peft, and shows how it is loaded and served."""

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

README = "README.md"
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # choices of its --max-lora-rank
LOADING = """import torch
from peft import PeftModel
from transformers import AutoTokenizer, {kind}

base = {kind}.from_pretrained({place}, dtype=torch.float32)
model, tokenizer = PeftModel.from_pretrained(base, "."), AutoTokenizer.from_pretrained({place})
"""
SERVING = """vLLM serves it together with other adapters of the base:

```bash
vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules route=.
```
"""


@torch.no_grad()
def write_adapter(model, routes_LE: Tensor, folder: Path, base: str | None) -> dict:
    """Writes an adapter with a README to a folder; returns its configuration.

    It has rank K r if the route mixes up to K experts in a layer; with mixed factors it has rank r. base: how
    the adapter names its base. Other arguments and errors as of `RoutingModel.to_adapter`.
    """
    config = model.config
    if not config.has_lora:
        raise InputError(f"experts of kind {config.expert_kind!r} are no adapter; only low-rank experts are")
    if there := [name for name in (ADAPTER_FILE, README) if (folder / name).exists()]:
        raise InputError(f"{folder} has a file {there[0]} already; name a new folder")
    known_LE, tensors = routes_LE.abs().cpu(), {}
    most = max(1, int((known_LE[config.routed_rows] != 0).sum(dim=1).max()))
    for layer in model.lora_layers:
        used_K = known_LE[layer.rows][0].topk(most).indices.to(model.device)
        for name, linear in layer.linear_maps.items():
            A, B = linear.factors_along(routes_LE[layer.rows].to(model.device), used_K)
            place = f"base_model.model.{layer.name}.{name}"
            tensors[f"{place}.lora_A.weight"] = A.cpu().contiguous()
            tensors[f"{place}.lora_B.weight"] = B.T.cpu().contiguous()
    content = adapter_config(model, len(A), base)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    code = loading_code(content)
    write_text(folder / README, f"In this folder:\n\n```python\n{code}```\n\n{serving(content)}")
    write_text(folder / ADAPTER_FILE, json.dumps(content, indent=1))  # the last: without it there is none
    return content


def name_of_base(model, folder: Path) -> str | None:
    """Returns how an adapter in a folder names the base of a model; None: it comes from no known place.

    Raises InputError if the base was trained since.
    """
    if model.config.base_model is not None and not is_unchanged(model):
        raise InputError(
            "the base was trained with the experts: save model.to_plain of zeros, and name it as base"
        )
    return place_from(folder, model.config.base_model)


def adapter_config(model, rank: int, base: str | None) -> dict:
    """Returns what peft reads of an adapter of this rank."""
    name, _, revision = base.partition("@") if base and is_hub_name(base) else (base, "", "")
    maps = [f"{layer.name}.{name}" for layer in model.lora_layers for name in layer.linear_maps]
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
        "base_model_name_or_path": name,
        "revision": revision or None,
        "r": rank,
        "lora_alpha": model.config.lora_scale * rank,
        "lora_dropout": model.config.lora_dropout,
        "target_modules": maps,  # in full, because layers may be vanilla
        "bias": "none",
        "inference_mode": True,
    }


def loading_code(config: dict) -> str:
    """Returns Python that loads an adapter with this configuration from the current folder."""
    place = repr(config["base_model_name_or_path"] or "NAME OR FOLDER OF THE BASE")
    if config["revision"]:
        place += f", revision={config['revision']!r}"
    kind = "AutoModelForCausalLM" if config["task_type"] == "CAUSAL_LM" else "AutoModelForSeq2SeqLM"
    return LOADING.format(kind=kind, place=place)


def serving(config: dict) -> str:
    """Returns how vLLM serves an adapter with this configuration, or why it does not."""
    rank = next((most for most in VLLM_RANKS if most >= config["r"]), None)
    if config["task_type"] != "CAUSAL_LM":
        return "vLLM serves decoder-only models; the base of this adapter has an encoder.\n"
    if rank is None:
        return f"vLLM serves adapters up to rank {VLLM_RANKS[-1]}; this one has rank {config['r']}.\n"
    return SERVING.format(base=config["base_model_name_or_path"] or "BASE", rank=rank)
