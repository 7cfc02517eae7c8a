"""Writes the updates of a route as an adapter of llama.cpp: a file in the format GGUF."""

from importlib.util import find_spec
from pathlib import Path

from dataloader.errors import InputError
from routing_moe.model.adapter_files import Factors

GGUF_FILE = "adapter.gguf"
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}  # by model type


def architecture_of(config) -> str:
    """Returns what llama.cpp calls the base of a mixture. Raises InputError for one without a known name."""
    kind = getattr(config, "backbone", config).model_type
    if kind not in ARCHITECTURES:
        raise InputError(f"--as gguf: the base is a {kind}, must be one of {', '.join(ARCHITECTURES)}")
    if find_spec("gguf") is None:
        raise InputError("GGUF files need the package gguf, which is an extra: pip install .[gguf]")
    return ARCHITECTURES[kind]


def write_gguf(model, factors: Factors, folder: Path) -> int:
    """Writes updates to a file in a folder; returns their rank.

    In its architecture "llama", llama.cpp rotates neighbouring features of a head together, transformers
    feature i with i + D/2. So the rows of queries and keys have another order there, also in adapters.
    """
    architecture, config = architecture_of(model.config), model.config.backbone
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    folder.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(folder / GGUF_FILE, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    for name, (A, B) in factors.items():
        if architecture == "llama" and (kind := name.rpartition(".")[2]) in heads:
            B = B.unflatten(1, (heads[kind], 2, -1)).mT.flatten(1)
        for side, factor in (("a", A), ("b", B.T)):
            values = factor.float().cpu().contiguous().numpy()
            writer.add_tensor(f"{names.get_name(name)}.weight.lora_{side}", values)
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, model.config.lora_scale * len(A))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return len(A)
