"""The updates of a route of low-rank experts, exact or of a lower rank, as an adapter of peft."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from routing_moe.config.assemble import ADAPTER_FILE, WEIGHTS_FILE
from routing_moe.io.hub import is_hub_name
from routing_moe.model.base import is_unchanged, place_from

# {name of a linear map: A (R, D_in), B (R, D_out)} of the updates s B^T A of a route; R is the same for all.
Factors = Mapping[str, tuple[Tensor, Tensor]]


@torch.no_grad()
def factors_of(model, routes_LE: Tensor, rank: int | None = None) -> tuple[Factors, float]:
    """Returns the updates along a route, of at most a rank, and the norm of what they lose by that, relative.

    rank: of the nearest updates; None: as many rows as a map needs that are not 0, up to K r for K experts.
    """
    config = model.config
    if not config.has_lora:
        raise InputError(f"experts of kind {config.expert_kind!r} are no adapter; only low-rank experts are")
    weights_LE, factors, needed = routes_LE.abs().cpu(), {}, 1
    most = max(1, int((weights_LE[config.routed_rows] != 0).sum(dim=1).max()))
    for layer in model.lora_layers:
        used_K = weights_LE[layer.rows][0].topk(most).indices.to(model.device)
        for name, linear in layer.linear_maps.items():
            A, B = linear.factors_along(routes_LE[layer.rows].to(model.device), used_K)
            is_used_R = A.any(dim=1) & B.any(dim=1)  # zeros are what an adapter of lower rank leaves
            needed = max(needed, int(is_used_R.sum()))
            order_R = is_used_R.argsort(descending=True, stable=True)
            factors[f"{layer.name}.{name}"] = A[order_R], B[order_R]
    if rank is None or rank >= needed:
        return {name: (A[:needed], B[:needed]) for name, (A, B) in factors.items()}, 0.0
    found = {name: nearest(A, B, rank) for name, (A, B) in factors.items()}
    lost, whole = (sum(float(S[i:].square().sum()) for *_, S in found.values()) for i in (rank, 0))
    return {name: (A, B) for name, (A, B, _) in found.items()}, (lost / whole) ** 0.5 if whole else 0.0


def nearest(A: Tensor, B: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns factors of the matrix of this rank nearest to B^T A, and the singular values of B^T A.

    Nearest in the Frobenius norm (Eckart and Young 1936), in float64. By QR of both factors and the SVD of an
    (R, R) matrix: B^T A itself is never computed.
    """
    (Q_A, R_A), (Q_B, R_B) = (torch.linalg.qr(factor.T.double()) for factor in (A, B))
    U, S, Vh = torch.linalg.svd(R_B @ R_A.T, full_matrices=False)
    root_R = S[:rank].sqrt()
    bases = Q_A @ Vh[:rank].T * root_R, Q_B @ U[:, :rank] * root_R
    added = (0, rank - len(root_R))  # columns of zeros, for a map with fewer features
    A, B = (torch.nn.functional.pad(basis, added).T.to(A.dtype) for basis in bases)
    return A, B, S


def write_adapter(model, factors: Factors, folder: Path, base: str | None) -> int:
    """Writes updates as an adapter of peft to a folder; returns its rank. base: how it names its base."""
    if (folder / ADAPTER_FILE).exists():
        raise InputError(f"{folder} has a file {ADAPTER_FILE} already; name a new folder")
    config, tensors = model.config, {}
    for name, (A, B) in factors.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = A.cpu().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = B.T.cpu().contiguous()
    name, _, revision = base.partition("@") if base and is_hub_name(base) else (base, "", "")
    content = {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM" if config.is_encoder_decoder else "CAUSAL_LM",
        "base_model_name_or_path": name,
        "revision": revision or None,
        "r": len(A),
        "lora_alpha": config.lora_scale * len(A),
        "lora_dropout": config.lora_dropout,
        "target_modules": list(factors),  # in full, because layers may be vanilla
        "bias": "none",
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    write_text(folder / ADAPTER_FILE, json.dumps(content, indent=1))  # the last: without it there is none
    return len(A)


def name_of_base(model, folder: Path) -> str | None:
    """Returns how an adapter in a folder names the base of a model; None: it comes from no known place."""
    if model.config.base_model is not None and not is_unchanged(model):
        raise InputError(
            "the base was trained with the experts: save model.to_plain of zeros, and name it as base"
        )
    return place_from(folder, model.config.base_model)
