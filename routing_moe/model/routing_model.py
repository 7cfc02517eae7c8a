"""What a routing BART and a `RoutedModel` have in common: routes of tasks, saving, export as an adapter."""

import dataclasses
import functools
import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import initialization as init

from dataloader.atomic_files import final_path
from dataloader.errors import InputError
from routing_moe.model.adapter_files import name_of_base, write_adapter
from routing_moe.model.base import place_from, stored_tensors
from routing_moe.model.lora import LoraLayer, LoraPlan, recomputed
from routing_moe.model.routed_layer import RoutePlan
from routing_moe.model.task_routing import TaskRouting, TaskVectors
from routing_moe.model.task_vectors import save_task_vectors

OF_PUSH = ("repo_id", "commit_message", "private", "token", "revision", "create_pr")  # of `push_to_hub`
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

    def generation_plan(self, routes_BLE: Tensor, options: dict) -> RoutePlan | LoraPlan | None:
        """Returns `plan_routes` for a call of `generate` with these options, which may repeat examples."""
        plan = self.plan_routes(routes_BLE)
        settings = options.get("generation_config") or self.generation_config
        names = ("num_beams", "num_return_sequences")
        copies = max(options.get(name) or getattr(settings, name, None) or 1 for name in names)
        return dataclasses.replace(plan, copies=copies) if isinstance(plan, LoraPlan) else plan

    def save_pretrained(self, save_directory: str | Path, *, push_to_hub: bool = False, **kwargs) -> None:
        """Saves as transformers does, plus task names and vectors (if any) in the interchange format.

        The base of low-rank experts is not saved if the configuration names the place that it comes from. A
        folder is named by its path from the saved model. Raises InputError for the folder of the base.
        """
        pushed = {name: kwargs.pop(name) for name in OF_PUSH if name in kwargs}
        base = self.config.base_model
        if base is not None and os.path.realpath(base) == final_path(save_directory):
            raise InputError(f"{save_directory} is the base of the experts; name another folder")
        if (stored := stored_tensors(self)) is not None:
            kwargs.setdefault("state_dict", stored)
        base = self.config.base_model  # None if it was trained
        self.config.base_model = place_from(save_directory, base)
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            self.config.base_model = base
        if kwargs.get("is_main_process", True):
            save_task_vectors(save_directory, self.config.task_names, self.vectors_of_tasks())
        if push_to_hub:  # now that all files are there: transformers would upload before the last line
            self.push_to_hub(**{"repo_id": Path(save_directory).name} | pushed)

    def _set_gradient_checkpointing(self, enable=True, gradient_checkpointing_func=checkpoint, **kwargs):
        """Lets repeated layers run along the routes of their first time; see `lora.recomputed`."""
        if self.lora_layers:  # a reentrant checkpoint takes no contexts
            gradient_checkpointing_func = functools.partial(
                gradient_checkpointing_func,
                use_reentrant=False,
                context_fn=functools.partial(recomputed, self.lora_layers),
            )
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, **kwargs)

    def to_adapter(self, routes_LE: Tensor, folder: str | Path, base: str | None = None) -> None:
        """Writes the equivalent adapter of peft of a route, which may be soft, to a folder.

        base: the place of the plain model, as the adapter names it; None: that of the configuration. Raises
        InputError for experts that are not of low rank, a base that was trained since, and if the folder has
        an adapter.
        """
        routes_LE, folder = self._resolve_routes(routes_LE[None], None, 1)[0], Path(folder)
        write_adapter(self, routes_LE, folder, base or name_of_base(self, folder))
