"""Low-rank experts as adapters of peft: `adapter_config.json` and `adapter_model.safetensors` in a folder.

    base_model.model.model.encoder.layers.0.self_attn.q_proj.lora_A.weight    A (r, D_in)
    base_model.model.model.encoder.layers.0.self_attn.q_proj.lora_B.weight    B (D_out, r)

The update of a linear map is s * B A, with s = lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora. The
linear maps are those with tensors in the file, so that `target_modules` may be in any form. peft itself is
not imported.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dataloader.errors import InputError, in_brief
from dataloader.jsonfile import load_json_object
from routing_moe.config.assemble import ADAPTER_FILE
from routing_moe.model.injection import OF_ATTENTION
from routing_moe.model.loading import check_finite
from routing_moe.model.lora import LoraLinear

WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
# The name of a file's tensor. BARTs without a head have names without "model."; an adapter may have a name.
TENSOR = re.compile(r"base_model\.model\.(?:model\.)?([\w.]+\.\d+\.[\w.]+?)\.lora_([AB])(?:\.\w+)?\.weight")
# Fields that make an adapter something else than updates s * B A of linear maps of the base: why.
REFUSED = {
    "use_dora": "DoRA also scales the columns of the weights",
    "use_bdlora": "its factors are block-diagonal",
    "use_qalora": "it pools the inputs of updates",
    "lora_bias": "updates have no bias here",
    "modules_to_save": "experts share all other weights of the base",
    "trainable_token_indices": "experts share the embeddings of the base",
    "target_parameters": "only linear maps have experts",
    "layer_replication": "the base has other layers then",
    "fan_in_fan_out": "the linear maps of BART are not transposed",
    "alora_invocation_tokens": "its updates start within a text",
    "arrow_config": "it routes tokens among other adapters",
    "kasa_config": "its updates have singular values of their own, and it changes the weights of the base",
    "monteclora_config": "its updates are random",
}
# Initialisations that leave the weights of the base as they are; pissa, olora and others subtract from them.
PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")


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
    a linear map, such as "encoder.layers.0.fc1": its update}.
    """

    folder: Path
    base: str | None
    updates: Mapping[str, Update]

    def files(self) -> list[Path]:
        """Returns the files of the adapter."""
        return [self.folder / ADAPTER_FILE, self.folder / WEIGHTS_FILE]


# ---- reading


def read_adapter(folder: str | Path) -> Adapter:
    """Returns the adapter in a folder. Raises InputError that names the file, the field and the reason."""
    folder = Path(folder)
    path = folder / ADAPTER_FILE
    values = load_json_object(path, "the configuration of a peft adapter")
    if problems := refusals(values):
        raise InputError(f"{path}: {problem}" for problem in problems)
    factors, kinds = {}, {"A": {}, "B": {}}
    for name, tensor in load_tensors(folder / WEIGHTS_FILE).items():
        match = TENSOR.fullmatch(name)
        if match is None or tensor.ndim != 2:
            raise InputError(f"{folder / WEIGHTS_FILE}: {name} is not a factor of a linear map of a layer")
        kinds[match[2]][match[1]] = tensor
    for name in kinds["A"] | kinds["B"]:
        A, B = (kinds[kind].get(name) for kind in "AB")
        if A is None or B is None or len(A) != B.shape[1] or not len(A):
            raise InputError(f"{folder / WEIGHTS_FILE}: lora_A and lora_B of {name} do not match")
        factors[name] = Update(A, B, scale_of(values, name, len(A)))
    if not factors:
        raise InputError(f"{folder / WEIGHTS_FILE}: has no factors of linear maps")
    base, revision = (values.get(field) for field in ("base_model_name_or_path", "revision"))
    return Adapter(folder, f"{base}@{revision}" if base and revision else base, factors)


def refusals(values: Mapping) -> list[str]:
    """Returns what a configuration has that low-rank experts cannot represent."""
    if values.get("peft_type") != "LORA":
        return [f"peft_type is {values.get('peft_type')!r}; experts are made of adapters of type LORA"]
    wrong = [f"{field} is set: {why}" for field, why in REFUSED.items() if values.get(field)]
    if values.get("bias", "none") != "none":
        wrong.append(f"bias is {values['bias']!r}: experts share the biases of the base; it must be 'none'")
    if (start := values.get("init_lora_weights")) not in PLAIN_STARTS:
        wrong.append(
            f"init_lora_weights is {start!r}: such adapters fit a base with other weights; convert it when "
            "it is saved (path_initial_model_for_weight_conversion of peft)"
        )
    patterns = values.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        return [*wrong, f"alpha_pattern is {patterns!r}; must be an object of names of linear maps"]
    for key in patterns:
        try:
            re.compile(full_pattern(key))
        except re.error as error:
            wrong.append(f"alpha_pattern has {key!r}: not a regular expression ({error})")
    alphas = {"lora_alpha": values.get("lora_alpha"), **patterns}
    wrong += [
        f"lora_alpha is {alpha!r}" + (f" for {name}" if name != "lora_alpha" else "") + "; must be a number"
        for name, alpha in alphas.items()
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha)
    ]
    return wrong


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Returns {name: tensor} of a safetensors file in float32. Raises InputError that names it."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"{path}: no such file (the weights of an adapter)")
    try:
        tensors = {name: t.float() if t.itemsize < 4 else t for name, t in load_file(path).items()}
    except Exception as error:  # safetensors raises its own type of error
        raise InputError(f"{path}: not a file of tensors ({in_brief(error)})") from None
    check_finite(tensors, path)
    return tensors


def scale_of(values: Mapping, name: str, rank: int) -> float:
    """Returns the scale of the update of a linear map, as peft computes it."""
    patterns = values.get("alpha_pattern") or {}
    own = (alpha for key, alpha in patterns.items() if re.fullmatch(full_pattern(key), f"model.{name}"))
    alpha = next(own, values["lora_alpha"])
    return alpha / (math.sqrt(rank) if values.get("use_rslora") else rank)


def full_pattern(key: str) -> str:
    """Returns the regular expression of full names for a key of alpha_pattern."""
    return rf"(?:.*\.)?(?:{key})"


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


def write_adapter(model, expert: int, folder: Path, base: str) -> None:
    """Writes an expert as an adapter into a new folder. base: as of `to_adapter`."""
    route_LE = torch.zeros(model.config.num_layers, model.config.num_experts, device=model.device)
    route_LE[:, expert] = 1
    model.to_adapter(route_LE, folder, base)
