"""Low-rank experts as adapters of peft, which reads them: the update of a linear map is s * B A."""

import importlib.util
import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from dataloader.errors import InputError, in_brief, in_short
from dataloader.jsonfile import load_json_object
from routing_moe.config.assemble import ADAPTER_FILE, WEIGHTS_FILE
from routing_moe.model.base import fingerprint
from routing_moe.model.injection import OF_ATTENTION, stacks
from routing_moe.model.loading import check_finite

PREFIX = "base_model.model."  # of names in an adapter
ONLY = "experts are only low-rank updates of linear maps of layers"
# {name of a linear map, such as "model.encoder.layers.0.fc1": (A (r, D_in), B (D_out, r), s)}
Updates = Mapping[str, tuple[Tensor, Tensor, float]]


@torch.no_grad()
def read_adapter(base, folder: Path) -> Updates:
    """Returns the updates of an adapter for a plain model. Raises InputError for what no expert can be.

    The adapter is loaded into the base itself and removed again: many adapters take the memory of one base,
    which must not be used after an error.
    """
    if importlib.util.find_spec("peft") is None:
        raise InputError("adapters need peft, which is an extra: pip install .[peft]")
    for name in (ADAPTER_FILE, WEIGHTS_FILE):  # without them, peft looks for a pickle, or on the hub
        if not (folder / name).is_file():
            files = f"(an adapter has {ADAPTER_FILE} and {WEIGHTS_FILE})"
            raise InputError(f"{folder / name}: no such file {files}")
    if load_json_object(folder / ADAPTER_FILE, "the settings of an adapter").get("layer_replication"):
        raise InputError(f"{folder}: repeats layers (layer_replication); {ONLY}")
    from peft import PeftModel
    from peft.tuners.lora import Linear
    from peft.tuners.tuners_utils import BaseTunerLayer

    before = fingerprint(base)
    try:
        with safe_open(folder / WEIGHTS_FILE, "pt") as file:
            names = sorted(file.keys())
        if other := [name for name in names if not name.startswith(PREFIX)]:  # peft would load none of them
            raise InputError(f"names of weights, such as {other[0]}, do not begin with {PREFIX}")
        with warnings.catch_warnings(action="ignore"):  # of fields of other versions
            adapted = PeftModel.from_pretrained(base, folder)
    except Exception as error:  # of many types
        raise InputError(f"{folder}: peft cannot load it on the base ({in_brief(error)})") from None
    layers, updates = tuple(f"{name}." for name in stacks(base)), {}
    for name, module in adapted.named_modules():
        name = name.removeprefix(PREFIX)
        if not isinstance(module, BaseTunerLayer):
            continue
        if not isinstance(module, Linear) or not name.startswith(layers):
            raise InputError(f"{folder}: changes {name}; {ONLY}")
        if variant := module.lora_variant.get("default"):
            kind = type(variant).__name__.removesuffix("LinearVariant").replace("Dora", "DoRA")
            raise InputError(f"{folder}: changes {name} by {kind}, a variant of LoRA; {ONLY}")
        A, B = module.lora_A["default"].weight, module.lora_B["default"].weight
        updates[name] = A, B, module.scaling["default"]
        if not math.isfinite(updates[name][2]):
            raise InputError(f"{folder / ADAPTER_FILE}: the scale of {name} is {updates[name][2]}")
    kept = {name.removeprefix(PREFIX) for name in names}
    needed = {f"{name}.lora_{factor}.weight" for name in updates for factor in "AB"}
    if others := sorted(kept - needed):
        raise InputError(f"{folder}: changes {in_short(others)}; {ONLY}")
    if missing := sorted(needed - kept):
        raise InputError(f"{folder}: {WEIGHTS_FILE} lacks {in_short(missing)}, which {ADAPTER_FILE} names")
    check_finite({f"{name}.lora_A": A for name, (A, _, _) in updates.items()}, folder)
    check_finite({f"{name}.lora_B": B for name, (_, B, _) in updates.items()}, folder)
    adapted.unload()
    if fingerprint(base) != before:
        start = adapted.peft_config["default"].init_lora_weights
        raise InputError(f"{folder}: changes weights of the base (init_lora_weights {start!r}); {ONLY}")
    return updates


def lora_fields(adapters: Iterable[Updates], rank: int = 0, targets: str | None = None) -> dict:
    """Returns the fields of a configuration whose experts can have the updates of all adapters.

    rank, targets: of one more expert. The rank is the highest; the scale is that of the updates if it is
    above 0 and the same for all, else 1.
    """
    updates = [pair for adapter in adapters for pair in adapter.items()]
    rank = max(rank, *(len(A) for _, (A, _, _) in updates))
    scales = {scale for _, (_, _, scale) in updates}
    kinds = {"attention" if OF_ATTENTION.search(name) else "feed_forward" for name, _ in updates}
    scale = max(scales) if len(scales) == 1 and max(scales) > 0 else 1.0
    kinds |= {targets} if targets else set()
    targets = kinds.pop() if len(kinds) == 1 else "all"
    return dict(expert_kind="lora", lora_rank=rank, lora_alpha=scale * rank, lora_targets=targets)


@torch.no_grad()
def fill_expert(model, expert: int, updates: Updates) -> None:
    """Gives an expert of a model the updates of an adapter.

    An adapter of lower rank leaves rows of A as they are, with zeros in B, which can still be trained.
    """
    layers = model.lora_layers
    linears = {f"{layer.name}.{name}": m for layer in layers for name, m in layer.linear_maps.items()}
    for name, (A, B, scale) in updates.items():
        linears[name].lora_A[expert, : len(A)] = A.to(linears[name].lora_A)
        linears[name].lora_B[expert, : len(A)] = B.T.to(linears[name].lora_B) * (scale / linears[name].scale)
