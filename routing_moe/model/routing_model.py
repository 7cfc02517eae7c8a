"""What a routing BART and a `RoutedModel` have in common: routes of tasks, saving, export as an adapter."""

import functools
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import initialization as init

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from routing_moe.config.assemble import ADAPTER_FILE, WEIGHTS_FILE
from routing_moe.io.hub import is_hub_name
from routing_moe.model.base import place_from, stored_tensors
from routing_moe.model.lora import LoraLayer, recomputed
from routing_moe.model.task_routing import TaskRouting, TaskVectors
from routing_moe.model.task_vectors import save_task_vectors

OF_PUSH = ("repo_id", "commit_message", "private", "token", "revision", "create_pr")  # of `push_to_hub`


VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # choices of its --max-lora-rank
PEFT = """In this folder:

```python
import torch
from peft import PeftModel
from transformers import AutoTokenizer, {kind}

base = {kind}.from_pretrained({place}, dtype=torch.float32)
model, tokenizer = PeftModel.from_pretrained(base, "."), AutoTokenizer.from_pretrained({place})
```

"""
VLLM = """Served by vLLM, together with other adapters of the base:

```bash
vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules route=.
```"""
TABLE_BOUND = 1e-3  # of the first logits of a table router (Ponti et al. 2022, arXiv 2202.13914)


class RoutingModel(TaskRouting):
    """A base of the models with experts, beside a class of transformers."""

    lora_layers: list[LoraLayer]
    supports_gradient_checkpointing = True

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, TaskVectors) and self.config.has_table:  # almost equal weights
            init.uniform_(module.weight, -TABLE_BOUND, TABLE_BOUND)
        elif isinstance(module, TaskVectors):
            init.normal_(module.weight, mean=0.0, std=1.0)
        elif isinstance(module, nn.RNNBase):  # torch's initialisation; transformers uses another for LSTMs
            bound = module.hidden_size**-0.5
            for parameter in module.parameters():
                init.uniform_(parameter, -bound, bound)

    def _smoothed_loss(self, logits_KV: Tensor, targets_K: Tensor) -> Tensor:
        """Returns label-smoothed cross-entropy in nats, summed over K target tokens, in float32 or better."""
        if logits_KV.dtype in (torch.float16, torch.bfloat16):
            logits_KV = logits_KV.float()
        return F.cross_entropy(
            logits_KV, targets_K, reduction="sum", label_smoothing=self.config.label_smoothing
        )

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs) -> None:
        """Saves as transformers does, plus task names and vectors (if any) in the interchange format.

        The base of low-rank experts is not saved if the configuration names the place that it comes from. A
        folder is named by its path from the saved model.
        """
        pushed = {name: kwargs.pop(name) for name in OF_PUSH if name in kwargs}
        if (stored := stored_tensors(self)) is not None:
            kwargs.setdefault("state_dict", stored)
        base = self.config.base_model
        self.config.base_model = place_from(save_directory, base)
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            self.config.base_model = base
        save_task_vectors(save_directory, self.config.task_names, self.vectors_of_tasks())
        if push_to_hub:  # now that all files are there: transformers would upload before the last line
            self.push_to_hub(**{"repo_id": Path(save_directory).name} | pushed)

    def _set_gradient_checkpointing(self, enable=True, gradient_checkpointing_func=checkpoint, **kwargs):
        """Lets repeated layers run along the routes of their first time; see `lora.recomputed`."""
        along_routes = functools.partial(
            gradient_checkpointing_func, context_fn=lambda: recomputed(self.lora_layers)
        )
        super()._set_gradient_checkpointing(enable, along_routes, **kwargs)

    @torch.no_grad()
    def to_adapter(self, routes_LE: Tensor, folder: str | Path, base: str | None = None) -> None:
        """Writes the equivalent adapter of peft of a route, which may be soft, to a new folder.

        It has rank K r if the route mixes up to K experts in a layer; with mixed factors it has rank r. base:
        the place of the plain model, as the adapter names it; None: that of the configuration.
        A README beside it shows its use. Raises InputError for experts that are not of low rank, and if the
        folder has an adapter.
        """
        config, folder = self.config, Path(folder)
        if not config.has_lora:
            raise InputError(
                f"experts of kind {config.expert_kind!r} are no adapter; only low-rank experts are"
            )
        if there := [name for name in (ADAPTER_FILE, WEIGHTS_FILE, "README.md") if (folder / name).exists()]:
            raise InputError(f"{folder} has a file {there[0]} already; name a new folder")
        known_LE, tensors = routes_LE.abs().cpu(), {}
        most = max(1, int((known_LE[config.routed_rows] != 0).sum(dim=1).max()))
        for layer in self.lora_layers:
            used_K = known_LE[layer.rows][0].topk(most).indices.to(self.device)
            for name, linear in layer.linear_maps.items():
                A, B = linear.factors_along(routes_LE[layer.rows].to(self.device), used_K)
                place = f"base_model.model.{layer.name}.{name}"
                tensors[f"{place}.lora_A.weight"] = A.cpu().contiguous()
                tensors[f"{place}.lora_B.weight"] = B.T.cpu().contiguous()
        rank = len(A)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        content = self._adapter_config(rank, base or place_from(folder, config.base_model))
        write_text(folder / ADAPTER_FILE, json.dumps(content, indent=1))
        write_text(folder / "README.md", adapter_card(content))

    def _adapter_config(self, rank: int, base: str | None) -> dict:
        """Returns what peft reads of an adapter of this rank."""
        name, _, revision = base.partition("@") if base and is_hub_name(base) else (base, "", "")
        maps = [f"{layer.name}.{name}" for layer in self.lora_layers for name in layer.linear_maps]
        return {
            "peft_type": "LORA",
            "task_type": "SEQ_2_SEQ_LM" if self.config.is_encoder_decoder else "CAUSAL_LM",
            "base_model_name_or_path": name,
            "revision": revision or None,
            "r": rank,
            "lora_alpha": self.config.lora_scale * rank,
            "lora_dropout": self.config.lora_dropout,
            "target_modules": maps,  # in full, because layers may be vanilla
            "bias": "none",
            "inference_mode": True,
        }


def adapter_card(config: dict) -> str:
    """Returns a README for an adapter with this configuration."""
    name, rank, is_causal = config["base_model_name_or_path"], config["r"], config["task_type"] == "CAUSAL_LM"
    place = f'"{name or "BASE"}"' + (f', revision="{config["revision"]}"' if config["revision"] else "")
    largest = next((most for most in VLLM_RANKS if most >= rank), None)
    if not is_causal:
        serving = "vLLM serves adapters of decoder-only models; this one has an encoder."
    elif largest is None:
        serving = f"vLLM serves adapters up to rank {VLLM_RANKS[-1]}; this one has rank {rank}."
    else:
        serving = VLLM.format(base=name or "BASE", rank=largest)
    kind = "AutoModelForCausalLM" if is_causal else "AutoModelForSeq2SeqLM"
    return PEFT.format(kind=kind, place=place) + serving + "\n\n"
