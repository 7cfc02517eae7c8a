"""Scores of tasks with ablated experts.

    evaluator = Evaluator(model, tokenizer, files, decoding, accelerator)
    evaluator.scores(evaluator.routes())             # {sample: score} with all experts
    evaluator.scores(evaluator.routes(ablated_LE))   # without the experts that are True in ablated_LE

A router's logits for an ablated expert become -inf, so that it chooses among the others: a soft route is
renormalised, a one-hot route uses the next best expert. Fixed and average routes are renormalised; where no
weight is left they become uniform over the other experts. N tasks, L layers, E experts.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from dataloader.errors import InputError
from routing_moe.analysis.ablation.expert_sets import Expert
from routing_moe.evaluation.scored_files import Decoding, TaskFile
from routing_moe.evaluation.scoring import answer, score
from routing_moe.model.selection import noise_free_routes


class NothingToAblate(InputError):
    """Flags and files are valid, but there is no expert to ablate."""

    exit_code = 3


def mask_of(ablated: Iterable[Expert], num_layers: int, num_experts: int) -> np.ndarray:
    """Returns a mask (L, E), True for ablated experts. Raises ValueError if a layer has no expert left."""
    ablated_LE = np.zeros((num_layers, num_experts), dtype=bool)
    for row, expert in ablated:
        ablated_LE[row, expert] = True
    if (empty_L := ablated_LE.all(axis=1)).any():
        raise ValueError(f"row {int(empty_L.argmax())} of the routes would have no expert left")
    return ablated_LE


@torch.no_grad()
def routes_without(model, tasks: Sequence[str], ablated_LE: np.ndarray | None) -> Tensor:
    """Returns noise-free routes (N, L, E) of tasks, without experts that are True in ablated_LE, if given."""
    if ablated_LE is None:
        return model.routes_for(list(tasks))
    mask = torch.from_numpy(ablated_LE).to(model.device)
    config = model.config
    if config.has_router:
        logits_NLE = model.router_logits(model.task_ids(list(tasks))).masked_fill(mask, -torch.inf)
        return noise_free_routes(
            logits_NLE, config.router_mode, config.router_temperature, config.router_top_k
        )
    left_NLE = model.routes_for(list(tasks)).masked_fill(mask, 0.0)
    sums_NL1 = left_NLE.sum(-1, keepdim=True)
    uniform_LE = (~mask).to(left_NLE.dtype)
    uniform_LE = uniform_LE / uniform_LE.sum(-1, keepdim=True)
    return torch.where(
        sums_NL1 > 0, left_NLE / sums_NL1.clamp_min(torch.finfo(sums_NL1.dtype).tiny), uniform_LE
    )


class Evaluator:
    """A model with the task files that it is scored on.

    Raises NothingToAblate for a model without an expert that can be ablated for a task.
    """

    def __init__(
        self,
        model,
        tokenizer,
        files: Sequence[TaskFile],
        decoding: Decoding,
        accelerator: Accelerator,
    ):
        config = model.config
        if config.num_experts == 1 or config.route_source == "random":
            what = "one expert per layer" if config.num_experts == 1 else "routes drawn for each example"
            raise NothingToAblate(f"a model with {what} has no experts that can be ablated for a task")
        self.model, self.tokenizer, self.files = model.eval(), tokenizer, list(files)
        self.decoding, self.accelerator = decoding, accelerator
        self.tasks = list(dict.fromkeys(file.task for file in files))
        self._own = {task: self._read(route_LE) for task, route_LE in self.routes().items()}

    def routes(self, ablated_LE: np.ndarray | None = None) -> dict[str, Tensor]:
        """Returns {task: route (L, E)}, without the experts that are True in ablated_LE."""
        return dict(zip(self.tasks, routes_without(self.model, self.tasks, ablated_LE), strict=True))

    def changed(self, ablated_LE: np.ndarray) -> list[str]:
        """Tasks whose routes change without these experts; other tasks keep their scores."""
        without = self.routes(ablated_LE)
        return [task for task in self.tasks if self._own[task] != self._read(without[task])]

    def fingerprint(self) -> int:
        """Returns a checksum of the routes of all tasks."""
        return zlib.crc32(b"".join(self._own.values()))

    def examples_of(self, tasks: Sequence[str]) -> int:
        """Returns the number of examples in the files of the tasks."""
        wanted = set(tasks)
        return sum(len(file.examples) for file in self.files if file.task in wanted)

    def scores(self, routes: dict[str, Tensor], tasks: Sequence[str] | None = None) -> dict[str, float]:
        """Returns {sample: score} of the files of the tasks (None: all), each with its task's route."""
        wanted = set(self.tasks if tasks is None else tasks)
        files = [file for file in self.files if file.task in wanted]
        answers = answer(self.model, self.tokenizer, files, self.decoding, self.accelerator, routes)
        return {
            file.sample: score(file, own.texts, self.decoding.do_lowercase)
            for file, (own,) in zip(files, answers, strict=True)
        }

    def _read(self, route_LE: Tensor) -> bytes:
        """Returns the rows of a route that a layer reads."""
        return route_LE[self.model.config.routed_rows].float().cpu().numpy().tobytes()
