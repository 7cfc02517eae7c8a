"""Writes the updates of a route as an adapter of llama.cpp: a file in the format GGUF.

In its architecture "llama", llama.cpp rotates neighbouring features of a head together; transformers pairs
feature i with i + D/2. So the rows of queries and keys have another order, also in adapters.
"""

from importlib.util import find_spec
from pathlib import Path

from dataloader.errors import InputError
from routing_moe.model.adapter_files import Factors

GGUF_FILE = "adapter.gguf"
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}  # of model types
PERMUTED = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}  # with their numbers of heads


def architecture_of(config) -> str:
    """Returns the architecture in llama.cpp of a mixture's base. Raises InputError where there is none."""
    kind = getattr(config, "backbone", config).model_type
    if kind not in ARCHITECTURES:
        raise InputError(f"--as gguf: the base is a {kind}, must be one of {', '.join(ARCHITECTURES)}")
    if find_spec("gguf") is None:
        raise InputError("GGUF files need the package gguf, which is an extra: pip install .[gguf]")
    return ARCHITECTURES[kind]


def write_gguf(model, factors: Factors, folder: Path) -> int:
    """Writes updates to a file in a folder; returns their rank."""
    architecture = architecture_of(model.config)
    import gguf

    backbone = model.config.backbone
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], backbone.num_hidden_layers)
    folder.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(folder / GGUF_FILE, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    for name, (A, B) in factors.items():
        own = names.get_name(f"{name}.weight", try_suffixes=(".weight",))
        heads = PERMUTED.get(name.rpartition(".")[2]) if architecture == "llama" else None
        if heads is not None:
            B = B.unflatten(1, (getattr(backbone, heads), 2, -1)).mT.flatten(1)
        for side, factor in (("a", A), ("b", B.T)):
            writer.add_tensor(f"{own}.lora_{side}", factor.detach().float().cpu().contiguous().numpy())
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, model.config.lora_scale * len(A))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return len(A)
