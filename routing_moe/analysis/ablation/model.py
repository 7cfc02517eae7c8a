"""Scores of tasks with ablated experts.

    evaluator = Evaluator(model, tokenizer, files, decoding, accelerator)
    evaluator.scores(evaluator.routes())                    # {sample: score} with all experts
    evaluator.scores(evaluator.routes(((0, 1), (2, 0))))    # without expert 1 of row 0 and expert 0 of row 2

A router's logits for an ablated expert become -inf, so that it chooses among the others: a soft route is
renormalised, a one-hot route uses the next best expert. Fixed and average routes are renormalised; where no
weight is left they become uniform over the other experts. N tasks, L layers, E experts.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from dataloader.errors import InputError
from routing_moe.analysis.ablation.expert_sets import BASE, ExpertSet
from routing_moe.evaluation.scored_files import Decoding, TaskFile
from routing_moe.evaluation.scoring import answer, score
from routing_moe.model.selection import noise_free_routes


class NothingToAblate(InputError):
    """Flags and files are valid, but there is no expert to ablate."""

    exit_code = 3


@torch.no_grad()
def routes_without(model, tasks: Sequence[str], experts: ExpertSet = BASE) -> Tensor:
    """Returns noise-free routes (N, L, E) of tasks without these experts; each layer must keep one."""
    if not experts:
        return model.routes_for(list(tasks))
    config = model.config
    mask = torch.zeros(config.num_layers, config.num_experts, dtype=torch.bool, device=model.device)
    for row, expert in experts:
        mask[row, expert] = True
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
    """A model with the task files that it is scored on; `weights` has the route (L, E) of each task.

    Raises NothingToAblate for a model without an expert that can be ablated for a task.
    """

    def __init__(
        self, model, tokenizer, files: Sequence[TaskFile], decoding: Decoding, accelerator: Accelerator
    ):
        config = model.config
        if config.num_experts == 1 or config.route_source == "random":
            reason = "one expert per layer" if config.num_experts == 1 else "routes drawn for each example"
            raise NothingToAblate(f"a model with {reason} has no experts that can be ablated for a task")
        self.model, self.tokenizer, self.files = model.eval(), tokenizer, list(files)
        self.decoding, self.accelerator = decoding, accelerator
        self.tasks = list(dict.fromkeys(file.task for file in files))
        routes = self.routes()
        self.weights = {task: route_LE.double().cpu().numpy() for task, route_LE in routes.items()}
        self._own_bytes = {task: self._bytes(route_LE) for task, route_LE in routes.items()}

    def routes(self, experts: ExpertSet = BASE) -> dict[str, Tensor]:
        """Returns {task: route (L, E)} without these experts."""
        return dict(zip(self.tasks, routes_without(self.model, self.tasks, experts), strict=True))

    def changed(self, experts: ExpertSet) -> list[str]:
        """Tasks whose routes change without these experts; other tasks keep their scores."""
        without = self.routes(experts)
        return [task for task in self.tasks if self._own_bytes[task] != self._bytes(without[task])]

    def fingerprint(self) -> int:
        """Returns a checksum of the routes of all tasks."""
        return zlib.crc32(b"".join(self._own_bytes.values()))

    def examples_of(self, tasks: Sequence[str]) -> int:
        """Returns the number of examples in the files of the tasks."""
        return sum(len(file.examples) for file in self.files if file.task in tasks)

    def scores(self, routes: dict[str, Tensor], tasks: Sequence[str] | None = None) -> dict[str, float]:
        """Returns {sample: score} of the files of the tasks (None: all), each with its task's route."""
        files = [file for file in self.files if tasks is None or file.task in tasks]
        answers = answer(self.model, self.tokenizer, files, self.decoding, self.accelerator, routes)
        return {
            file.sample: score(file, answered.texts, self.decoding.do_lowercase)
            for file, (answered,) in zip(files, answers, strict=True)
        }

    def _bytes(self, route_LE: Tensor) -> bytes:
        """Returns the rows of a route that a layer reads."""
        return route_LE[self.model.config.routed_rows].float().cpu().numpy().tobytes()
