"""Low-rank experts as adapters of peft: `adapter_config.json` and `adapter_model.safetensors` in a folder.

    base_model.model.model.encoder.layers.0.self_attn.q_proj.lora_A.weight    A (r, D_in)
    base_model.model.model.encoder.layers.0.self_attn.q_proj.lora_B.weight    B (D_out, r)

The update of a linear map is s * B A, with s = lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora. The
linear maps are those with tensors in the file, so that `target_modules` may be in any form.
"""

import importlib.util
import math
import os
import re
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dataloader.checksums import sha256
from dataloader.errors import InputError, in_brief, problem_context
from dataloader.jsonfile import load_json_object
from routing_moe.config.assemble import ADAPTER_FILE, WEIGHTS_FILE
from routing_moe.model.injection import OF_ATTENTION, merged_state
from routing_moe.model.loading import check_finite
from routing_moe.model.lora import LoraLinear

# The name of a file's tensor: of a linear map in the model that peft wrapped, and its factor.
TENSOR = re.compile(r"base_model\.model\.((?:[^\W\d]\w*\.)+\d+\.[\w.]+?)\.lora_([AB])(?:\.\w+)?\.weight")
# Fields of LoraConfig with any value: seen in the tensors, used in training only, or read for the scale.
# Others that are set are refused, also those of later versions of peft.
ANY_VALUE = {
    *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_dropout"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "ensure_weight_tying"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_core", "qalora_group_size"),
}
# Other initialisations (pissa, olora, ...) change the base, unless peft converts the adapter that it saves.
VALUES = {"bias": ("none",), "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal")}
LONGEST = 20  # seconds that the expressions of a foreign adapter may take to be matched


@dataclass(frozen=True, eq=False)
class Update:
    """The update `scale` * B A of a linear map. A: (r, D_in), B: (D_out, r)."""

    A: Tensor
    B: Tensor
    scale: float

    @property
    def rank(self) -> int:
        return len(self.A)

    def merged(self, weight: Tensor) -> Tensor:
        """Returns the weight (D_out, D_in) of the linear map with its update."""
        return torch.addmm(weight, self.B.to(weight.dtype), self.A.to(weight.dtype), alpha=self.scale)


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter that was read.

    base: the model that it was made for, as its configuration names it, or "name@revision". updates: {name of
    a linear map, such as "encoder.layers.0.fc1": its update}. checksums: {file: SHA-256} of what was read.
    """

    folder: Path
    base: str | None
    updates: Mapping[str, Update]
    checksums: Mapping[str, str]


# ---- reading


def need_peft() -> None:
    """Raises InputError that names the extra if peft is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise InputError("adapters need peft, which is an extra: pip install .[peft]")


def read_adapter(folder: str | Path) -> Adapter:
    """Returns the adapter in a folder. Raises InputError that names the file, the field and the reason."""
    need_peft()
    folder = Path(folder)
    files = path, weights = folder / ADAPTER_FILE, folder / WEIGHTS_FILE
    for file in files:  # without them, peft looks for a pickle, or on the hub
        if not file.is_file():
            raise InputError(f"{file}: no such file (an adapter has {ADAPTER_FILE} and {WEIGHTS_FILE})")
    checksums = {file.name: sha256(file) for file in files}
    config, factors = read_config(path), read_factors(weights)
    if checksums != {file.name: sha256(file) for file in files}:
        raise InputError(f"{folder} has changed while it was read")
    end, updates = time.process_time() + LONGEST, {}
    with problem_context(f"{path}: "):
        for name, pair in factors.items():
            scale = scale_of(config, name, len(pair["A"]), end)
            updates[name.removeprefix("model.")] = Update(**pair, scale=scale)
    base, revision = config.base_model_name_or_path, config.revision
    if base and (folder / base).exists():  # a path from the adapter, as `to_adapter` writes it
        base = os.path.realpath(folder / base)
    return Adapter(folder, f"{base}@{revision}" if base and revision else base, updates, checksums)


def read_config(path: Path):
    """Returns peft's LoraConfig of a file. Raises InputError for what low-rank experts cannot represent."""
    from peft import PeftConfig

    values = load_json_object(path, "the configuration of a peft adapter")
    if (kind := values.get("peft_type")) != "LORA":
        raise InputError(f"{path}: peft_type is {kind!r}; experts are made of adapters of type LORA")
    if refused := [
        f"{path}: {field} is {repr(value) if isinstance(value, str) else 'set'}; experts are only low-rank "
        "updates of linear maps of the base"
        for field, value in values.items()
        if field not in ANY_VALUE and (value not in VALUES[field] if field in VALUES else value)
    ]:
        raise InputError(refused)
    if not isinstance(patterns := values.get("alpha_pattern") or {}, dict):
        raise InputError(f"{path}: alpha_pattern is {patterns!r}; must be an object of names of linear maps")
    try:
        with warnings.catch_warnings(action="ignore"):  # of fields of other versions, which are not set
            return PeftConfig.from_peft_type(**values)
    except Exception as error:  # of many types
        raise InputError(f"{path}: not a configuration of peft ({in_brief(error)})") from None


def read_factors(path: Path) -> dict[str, dict[str, Tensor]]:
    """Returns {linear map: {"A": A, "B": B}} of a file, in float32 at least. Raises InputError."""
    from peft.utils import load_peft_weights

    try:  # copies, because loaded tensors are parts of the file, mapped into memory, which others may write
        loaded = load_peft_weights(str(path.parent), device="cpu").items()
        tensors = {n: t.to(torch.float32 if t.itemsize < 4 else t.dtype, copy=True) for n, t in loaded}
    except Exception as error:  # safetensors raises its own type of error
        raise InputError(f"{path}: not a file of tensors ({in_brief(error)})") from None
    check_finite(tensors, path)
    factors = {}
    for name, tensor in tensors.items():
        match = TENSOR.fullmatch(name)
        if match is None or tensor.ndim != 2:
            raise InputError(f"{path}: {name} is not a factor of a linear map of a layer")
        factors.setdefault(match[1], {})[match[2]] = tensor
    for name, pair in factors.items():
        if len(pair) < 2 or not len(pair["A"]) == pair["B"].shape[1] > 0:
            raise InputError(f"{path}: lora_A and lora_B of {name} do not match")
    if not factors:
        raise InputError(f"{path}: has no factors of linear maps")
    return factors


def scale_of(config, name: str, rank: int, end: float) -> float:
    """Returns the scale of the update of a linear map, as peft computes it.

    end: the process time at which InputError is raised, because a foreign expression may take years.
    """
    import regex  # `re` has no time limit

    alpha, of = config.lora_alpha, ""
    for key, own in (config.alpha_pattern or {}).items():
        try:  # as `get_pattern_key` of peft
            found = regex.match(rf"(.*\.)?({key})$", name, timeout=max(end - time.process_time(), 0))
        except Exception as error:  # of the expression, or that time is over
            problem = f"not a regular expression that can be used ({in_brief(error)})"
            raise InputError(f"alpha_pattern has {key!r}: {problem}") from None
        if found:
            alpha, of = own, f" for {key}"
            break
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise InputError(f"lora_alpha is {alpha!r}{of}; must be a number")
    return alpha / (math.sqrt(rank) if config.use_rslora else rank)


# ---- experts


def lora_fields(adapters: Iterable[Adapter]) -> dict:
    """Returns the fields of a configuration whose experts can have the updates of all adapters.

    The rank is the highest; the scale is that of the updates if it is above 0 and the same for all, else 1.
    """
    updates = [(name, update) for adapter in adapters for name, update in adapter.updates.items()]
    rank, scales = max(update.rank for _, update in updates), {update.scale for _, update in updates}
    kinds = {"attention" if OF_ATTENTION.search(name) else "feed_forward" for name, _ in updates}
    scale = max(scales) if len(scales) == 1 and max(scales) > 0 else 1.0
    targets = kinds.pop() if len(kinds) == 1 else "all"
    return dict(expert_kind="lora", lora_rank=rank, lora_alpha=scale * rank, lora_targets=targets)


def linear_maps(model) -> dict[str, LoraLinear]:
    """Returns {name, such as "encoder.layers.0.fc1": linear map with experts} of a model."""
    linears = {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}
    return {name.removeprefix("model."): linear for name, linear in linears.items()}


@torch.no_grad()
def fill_expert(model, expert: int, adapter: Adapter) -> None:
    """Gives an expert of a model the updates of an adapter. Raises InputError if they do not fit its layers.

    An adapter of lower rank leaves rows of A as they are, with zeros in B: such an update can still be
    trained to the full rank.
    """
    linears = linear_maps(model)
    for name, update in adapter.updates.items():
        linear = linears.get(name)
        sizes = (update.A.shape[1], len(update.B))
        if linear is None or sizes != (linear.in_features, linear.out_features):
            own = f"maps {linear.in_features} to {linear.out_features}" if linear else "is not there"
            raise InputError(
                f"{adapter.folder / WEIGHTS_FILE}: {name} maps {sizes[0]} dimensions to {sizes[1]}; in the "
                f"base it {own}"
            )
        linear.lora_A[expert, : update.rank] = update.A.to(linear.lora_A)
        linear.lora_B[expert, : update.rank] = update.B.T.to(linear.lora_B) * (update.scale / linear.scale)


def check_with_peft(model, routes_LE: Tensor, folder: Path) -> None:
    """Raises InputError unless peft computes a route's weights from the adapter in a folder."""
    from peft import PeftModel

    with warnings.catch_warnings(action="ignore"):  # of names in transformers that peft has not replaced yet
        adapted = PeftModel.from_pretrained(model.to_plain(torch.zeros_like(routes_LE)), folder)
        found = adapted.merge_and_unload().state_dict()
    for name, weight in merged_state(model.lora_layers, routes_LE).items():
        if not torch.allclose(found[name], weight, rtol=1e-4, atol=1e-5 * float(weight.abs().max())):
            raise InputError(f"{folder}: with peft, {name} is another matrix; is peft up to date?")
