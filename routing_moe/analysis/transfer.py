"""The transfer matrix of a run with an expert for each task: its computation, its groups, its files.

    losses/TASK.npy   losses of all rows along the expert of a task; what is there is not computed again
    job.json          what these losses are of
    losses.csv        mean losses (nats per row) of each task, a row, along each expert, a column
    groups.json       {task: group}, a file for `train --task_routes`
    transfer.json     contested share, number of groups, silhouette, advantage, FLOPs

N tasks, R rows, M experts that are compared, L layers, E experts.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from dataloader.atomic_files import write_text
from dataloader.encoding import EncodedExamples, encode
from dataloader.errors import InputError
from dataloader.progress import ProgressBar
from routing_moe.checkpoints.find import mixture_to_score
from routing_moe.checkpoints.start import load_start
from routing_moe.config.transfer import TransferSettings
from routing_moe.evaluation.route_losses import losses_along, losses_of_tasks
from routing_moe.io.arrays import load_array
from routing_moe.io.files import npy_bytes
from routing_moe.io.job_folder import JobFolder, keep_same_job
from routing_moe.io.main_process import on_main
from routing_moe.model.flops import rows_flops
from routing_moe.task_choice.contested import Contested
from routing_moe.task_choice.transfer import Groups, affinity, gains, grouped, mates, means_by_task
from routing_moe.training.checks import Inputs

GROUPS_FILE = "groups.json"
SUMMARY_FILE = "transfer.json"

log = logging.getLogger("routing_moe")


@dataclass(frozen=True, eq=False)
class TransferMatrix:
    """tasks: those with rows. columns: those whose experts are compared. losses_NM: nats per row."""

    tasks: list[str]
    columns: list[str]
    losses_NM: np.ndarray
    affinity_MM: np.ndarray
    labels_N: np.ndarray
    summary: dict

    def write(self, folder: Path, all_tasks: list[str]) -> None:
        """Writes losses.csv, groups.json and transfer.json. Tasks without rows join the largest group."""
        table = pd.DataFrame(self.losses_NM, index=self.tasks, columns=self.columns)
        write_text(folder / "losses.csv", table.rename_axis("task").round(4).to_csv())
        largest = int(np.bincount(self.labels_N).argmax())
        groups = dict.fromkeys(all_tasks, largest) | dict(
            zip(self.tasks, self.labels_N.tolist(), strict=True)
        )
        write_groups(folder, groups, self.summary)


def write_groups(folder: Path, groups: dict[str, int], summary: dict) -> None:
    """Writes the group of each task and what it was decided by."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / GROUPS_FILE, json.dumps(groups, indent=1))
    write_text(folder / SUMMARY_FILE, json.dumps(summary, indent=1))


class TransferJob:
    """Compares the experts of a run's tasks on its train rows, of a run on contested rows on these."""

    def __init__(
        self,
        settings: TransferSettings,
        inputs: Inputs,
        contested: Contested | None,
        accelerator: Accelerator,
    ):
        prediction = settings.prediction
        self.settings, self.contested, self.accelerator = settings, contested, accelerator
        self.model, tokenizer = load_start(prediction, inputs.split)
        self.model.to(accelerator.device).eval()
        names = self.model.config.task_names
        pool = inputs.train_gym.pool(inputs.split.train, "train", limit=prediction.examples_per_file)
        rows = encode(pool, tokenizer, inputs.text_format, {name: row for row, name in enumerate(names)})
        self.rows = contested.of(rows, names) if contested else rows
        used, self.tasks_R = np.unique(self.rows.task_ids_N, return_inverse=True)
        self.tasks = [names[n] for n in used]
        self.routes_NLE = self.model.routes_for(self.tasks)
        self._check_experts()
        count = min(settings.columns, len(self.tasks))
        draw = np.random.default_rng(settings.seed)
        self.columns_M = np.sort(draw.permutation(len(self.tasks))[:count])
        self.columns = [self.tasks[n] for n in self.columns_M]
        self.losses = JobFolder(settings.output_dir / "losses", load_array, "compute it again", ".npy")

    def _check_experts(self) -> None:
        routed_NLE = self.routes_NLE[:, self.model.config.routed_rows]
        own_N = routed_NLE.flatten(1).unique(dim=0, return_inverse=True)[1].tolist()
        first = {}
        for task, own in zip(self.tasks, own_N, strict=True):
            if other := first.setdefault(own, task) != task and first[own]:
                raise InputError(
                    f"{self.settings.run}: {other} and {task} have the same experts; `transfer` needs a run "
                    "with an expert for each task (train --task_routes tasks)"
                )

    def run(self) -> TransferMatrix:
        """Computes what is missing, and the groups. All processes must call it, and get the same."""
        losses_RM = self._losses()
        gains_NM = gains(losses_RM, self.tasks_R, self.columns_M)
        found = grouped(gains_NM, self.columns_M)
        advantage = self._advantage(found)
        is_divided = found.labels_N.max() > 0 and advantage > self.settings.advantage
        labels_N = found.labels_N if is_divided else np.zeros_like(found.labels_N)
        summary = {
            "contested": self.contested and round(self.contested.share, 4),
            "contested_above": self.contested and self.contested.above,
            "rows": len(self.rows),
            "tasks": len(self.tasks),
            "experts": len(self.columns),
            "clusters": int(found.labels_N.max()) + 1,
            "silhouette": round(found.silhouette, 4),
            "advantage": round(advantage, 4),
            "least_advantage": self.settings.advantage,
            "groups": int(labels_N.max()) + 1,
            "total_flops": (len(self.columns) + 2) * rows_flops(self.model.config, self.rows),
        }
        losses_NM = means_by_task(losses_RM, self.tasks_R)
        similarity_MM = (
            affinity(gains_NM[self.columns_M]) if len(self.columns) > 2 else np.eye(len(self.columns))
        )
        return TransferMatrix(self.tasks, self.columns, losses_NM, similarity_MM, labels_N, summary)

    def _losses(self) -> np.ndarray:
        """Returns the losses (R, M) of all rows along the compared experts."""
        on_main(self.accelerator, self._begin)
        found, quiet = [], not self.accelerator.is_main_process
        for n in ProgressBar(
            self.columns_M, "losses along experts", len(self.columns_M), unit="expert", disable=quiet
        ):
            task = self.tasks[n]
            losses_R = on_main(self.accelerator, lambda task=task: self.losses.finished(task))
            if losses_R is None:
                losses_R = losses_along(self.model, self.rows, self.routes_NLE[[n]], self.accelerator)[:, 0]
                if self.accelerator.is_main_process:
                    self.losses.write(task, npy_bytes(losses_R))
            found.append(losses_R)
        return np.stack(found, axis=1)

    def _begin(self) -> None:
        described = {
            "checkpoint": mixture_to_score(self.settings.prediction.start).checksums(),
            "rows": self.rows.fingerprint(),
            "mixed_precision": self.settings.prediction.mixed_precision,
        }
        keep_same_job(self.settings.output_dir, described, self.losses)

    def _advantage(self, found: Groups) -> float:
        """Returns how many nats a row loses less along the mean of its task's mates than along that of all.

        Over tasks with mates; 0 if there are none.
        """
        weights_NM = mates(found.labels_N, self.columns_M)
        has_mates_R = weights_NM.any(axis=1)[self.tasks_R]
        if not has_mates_R.any():
            return 0.0
        every_NM = np.full_like(weights_NM, 1 / weights_NM.shape[1])
        loss_all, loss_mates = (
            self._losses_along_means(weights, "losses along mean experts")[has_mates_R].mean()
            for weights in (every_NM, weights_NM)
        )
        return float(loss_all - loss_mates)

    def _losses_along_means(self, weights_NM: np.ndarray, desc: str) -> np.ndarray:
        """Returns the losses (R,) of rows along weighted experts of other tasks (zero weights: their own)."""
        weights = torch.from_numpy(weights_NM).to(self.routes_NLE)
        means_NLE = torch.einsum("nm,mle->nle", weights, self.routes_NLE[self.columns_M])
        none_N = (weights == 0).all(dim=1)
        means_NLE[none_N] = self.routes_NLE[none_N]
        rows = self._renumbered()
        return losses_of_tasks(self.model, rows, means_NLE, self.accelerator, desc)

    def _renumbered(self) -> EncodedExamples:
        """Returns the rows with tasks numbered as in `tasks`."""
        import dataclasses

        return dataclasses.replace(self.rows, task_ids_N=self.tasks_R.astype(np.int64))
