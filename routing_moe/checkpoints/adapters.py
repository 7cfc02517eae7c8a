"""Low-rank experts as adapters of peft, which reads them: the update of a linear map is s * B A."""

import copy
import importlib.util
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from dataloader.errors import InputError, in_brief
from routing_moe.config.assemble import ADAPTER_FILE, WEIGHTS_FILE
from routing_moe.model.injection import OF_ATTENTION, stacks

# {name of a linear map, such as "model.encoder.layers.0.fc1": (A (r, D_in), B (D_out, r), s)}
Updates = Mapping[str, tuple[Tensor, Tensor, float]]


@torch.no_grad()
def read_adapter(base, folder: Path) -> Updates:
    """Returns the updates of an adapter for a plain model. Raises InputError for what no expert can be."""
    if importlib.util.find_spec("peft") is None:
        raise InputError("adapters need peft, which is an extra: pip install .[peft]")
    for name in (ADAPTER_FILE, WEIGHTS_FILE):  # without them, peft looks for a pickle, or on the hub
        if not (folder / name).is_file():
            files = f"(an adapter has {ADAPTER_FILE} and {WEIGHTS_FILE})"
            raise InputError(f"{folder / name}: no such file {files}")
    from peft import PeftModel
    from peft.tuners.lora import Linear

    in_layers = tuple(f"{name}." for name in stacks(base))
    try:
        with warnings.catch_warnings(action="ignore"):  # of fields of other versions
            adapted = PeftModel.from_pretrained(copy.deepcopy(base), folder)
        updates = {
            name.removeprefix("base_model.model."): (
                module.lora_A["default"].weight,
                module.lora_B["default"].weight,
                module.scaling["default"],
            )
            for name, module in adapted.named_modules()
            if isinstance(module, Linear) and name.removeprefix("base_model.model.").startswith(in_layers)
        }
        merged = adapted.merge_and_unload().state_dict()
    except Exception as error:  # of many types
        raise InputError(f"{folder}: peft cannot load it on the base ({in_brief(error)})") from None
    for name, weight in base.state_dict().items():
        if name.endswith(".weight") and (update := updates.get(name.removesuffix(".weight"))):
            A, B, scale = update
            weight = torch.addmm(weight, B, A, alpha=scale)
        if name not in merged or not torch.allclose(merged[name], weight, rtol=1e-4, atol=1e-5):
            raise InputError(
                f"{folder}: changes {name}; experts are only low-rank updates of linear maps of layers"
            )
    return updates


def lora_fields(adapters: Iterable[Updates]) -> dict:
    """Returns the fields of a configuration whose experts can have the updates of all adapters.

    The rank is the highest; the scale is that of the updates if it is above 0 and the same for all, else 1.
    """
    updates = [pair for adapter in adapters for pair in adapter.items()]
    rank, scales = max(len(A) for _, (A, _, _) in updates), {scale for _, (_, _, scale) in updates}
    kinds = {"attention" if OF_ATTENTION.search(name) else "feed_forward" for name, _ in updates}
    scale = max(scales) if len(scales) == 1 and max(scales) > 0 else 1.0
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
