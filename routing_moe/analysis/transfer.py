"""The transfer matrix of a run with an expert for each task: its computation, its groups, its files.

    losses/TASK.npy   losses of all rows along the expert of a task; what is there is not computed again
    job.json          what these losses are of
    transfer.csv      mean losses (nats per row) of each task, a row, along each expert, a column; of low-rank
                      experts, also of the base alone
    groups.json       {task: group}, a file for `train --task_routes`
    transfer.json     contested share, number of groups, silhouette, agreement, advantage, FLOPs

N tasks, R rows, M experts that are compared, L layers, E experts.
"""

import dataclasses
import json
from functools import partial
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import adjusted_mutual_info_score

from dataloader.atomic_files import write_text
from dataloader.encoding import encode
from dataloader.errors import InputError
from dataloader.gym import Example, evenly_spread
from dataloader.progress import ProgressBar
from routing_moe.answering.routed import Routed
from routing_moe.checkpoints.find import checksums
from routing_moe.config.ablate import TransferSettings
from routing_moe.config.adapt import BASE
from routing_moe.evaluation.route_losses import losses_along, losses_of_tasks
from routing_moe.io.arrays import load_array
from routing_moe.io.files import npy_bytes
from routing_moe.io.job_folder import JobFolder, keep_same_job
from routing_moe.io.main_process import on_main
from routing_moe.io.run_folder import GROUPS_FILE, TABLE_FILE, TRANSFER_FILE
from routing_moe.model.counted_flops import rows_flops
from routing_moe.task_choice.contested import Contested
from routing_moe.task_choice.transfer import affinity, gains, grouped, mates, means_by_task


def write_groups(folder: Path, groups: dict[str, int], summary: dict) -> None:
    """Writes the group of each task and what it was decided by."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / TRANSFER_FILE, json.dumps(summary, indent=1))
    write_text(folder / GROUPS_FILE, json.dumps(groups, indent=1))


class TransferJob:
    """Compares the experts of a run's tasks on its train rows, of a run on contested rows on these."""

    def __init__(
        self, settings: TransferSettings, routed: Routed, examples: list[Example], contested: Contested | None
    ):
        self.settings, self.routed, self.contested = settings, routed, contested
        self.accelerator, self.model = routed.accelerator, routed.model
        names = self.model.config.task_names
        ids = {name: row for row, name in enumerate(names)}
        rows = encode(examples, routed.tokenizer, routed.text_format, ids)
        self.all_tasks = [name for name in names if name in {example.task for example in examples}]
        rows = contested.chosen_from(rows, names) if contested else rows
        of_tasks = [np.flatnonzero(rows.task_ids_N == n) for n in np.unique(rows.task_ids_N)]
        rows = rows.subset(np.concatenate([evenly_spread(own, settings.rows) for own in of_tasks]))
        used, self.tasks_R = np.unique(rows.task_ids_N, return_inverse=True)
        self.rows = dataclasses.replace(rows, task_ids_N=self.tasks_R)
        self.tasks = [names[n] for n in used]
        self.routes_NLE = self.model.routes_for(self.tasks)
        self._check_experts()
        drawn = np.random.default_rng(settings.seed).permutation(len(self.tasks))
        self.columns_M = np.sort(drawn[: settings.columns])
        self.losses = JobFolder(
            settings.folder / "losses", self._read, "compute it again", ".npy", partial(quote, safe="")
        )

    def _read(self, path: Path) -> np.ndarray:
        """Returns the losses (R,) of a file. Raises ValueError for another shape."""
        losses_R = load_array(path)
        if losses_R.shape != (len(self.rows),):
            raise ValueError("not a loss of each row")
        return losses_R

    def _check_experts(self) -> None:
        """Raises InputError if an expert is that of two tasks: it has read the rows of both."""
        used_NX = (self.routes_NLE[:, self.model.config.routed_rows] > 0).flatten(start_dim=1).float()
        shared_NN = (used_NX @ used_NX.T).fill_diagonal_(0)
        if shared_NN.any():
            one, other = shared_NN.nonzero()[0].tolist()
            raise InputError(
                f"{self.settings.run}: {self.tasks[one]} and {self.tasks[other]} share experts, so that each "
                "has been trained on both; give a run with --task_routes tasks"
            )

    def run(self) -> tuple[list[str], np.ndarray, np.ndarray, dict]:
        """Computes what is missing, and the groups. Returns (M tasks, (M, M) losses and affinity, summary).

        All processes must call it; the main one writes the files. Tasks without rows join the largest group.
        """
        columns_M, base_R1 = self.columns_M, None
        losses_RM = self._losses({self.tasks[n]: self.routes_NLE[n] for n in columns_M})
        if self.model.config.has_lora:
            base_R1 = self._losses({BASE: torch.zeros_like(self.routes_NLE[0])})
        gains_NM = self._gains(losses_RM, self.tasks_R)
        found, of_halves = grouped(gains_NM, columns_M), self._groups_of_halves(losses_RM)
        advantage = self._advantage(losses_RM, of_halves)
        labels_N = found.labels_N if advantage > self.settings.advantage else np.zeros_like(found.labels_N)
        summary = summary_of(self.settings.run, self.contested) | {
            "groups": int(labels_N.max()) + 1,
            "clusters": int(found.labels_N.max()) + 1,
            "silhouette": round(found.silhouette, 4),
            "agreement": round(float(adjusted_mutual_info_score(*of_halves)), 4),
            "advantage": round(advantage, 4),
            "least_advantage": self.settings.advantage,
            "tasks": len(self.tasks),
            "experts": len(columns_M),
            "rows": len(self.rows),
            "total_flops": (len(columns_M) + 2 + (base_R1 is not None)) * rows_flops(self.model, self.rows),
        }
        columns = [self.tasks[n] for n in columns_M]
        losses_NM = means_by_task(losses_RM, self.tasks_R, len(self.tasks))
        if self.accelerator.is_main_process:
            groups = dict.fromkeys(self.all_tasks, int(np.bincount(labels_N).argmax()))
            groups |= dict(zip(self.tasks, labels_N.tolist(), strict=True))
            write_groups(self.settings.folder, groups, summary)
            table = pd.DataFrame(losses_NM, index=self.tasks, columns=columns).rename_axis("task")
            if base_R1 is not None:
                table[BASE] = means_by_task(base_R1, self.tasks_R, len(self.tasks))
            write_text(self.settings.folder / TABLE_FILE, table.round(4).to_csv())
        return columns, losses_NM[columns_M], affinity(gains_NM[columns_M]), summary

    def _losses(self, routes: dict[str, torch.Tensor]) -> np.ndarray:
        """Returns the losses (R, M) of all rows along M routes (L, E), each kept under its name."""
        on_main(self.accelerator, self._begin)
        found, quiet = [], not self.accelerator.is_main_process
        for name in ProgressBar(routes, "losses", len(routes), unit="expert", disable=quiet):
            losses_R = on_main(self.accelerator, lambda name=name: self.losses.finished(name))
            if losses_R is None:
                losses_R = losses_along(self.model, self.rows, routes[name][None], self.accelerator)[:, 0]
                if self.accelerator.is_main_process:
                    self.losses.write(name, npy_bytes(losses_R))
            found.append(losses_R)
        return np.stack(found, axis=1)

    def _begin(self) -> None:
        described = {
            "checkpoint": checksums(self.routed.start),
            "data": self.rows.fingerprint(),
            "columns": self.columns_M.tolist(),
            "mixed_precision": self.accelerator.mixed_precision,
        }
        keep_same_job(self.settings.folder, described, self.losses)

    def _groups_of_halves(self, losses_RM: np.ndarray) -> list[np.ndarray]:
        """Returns the groups (N,) by each half of the tasks' rows."""
        half_R, found = halves(self.tasks_R), []
        for half in (0, 1):
            gains_NM = self._gains(losses_RM[half_R == half], self.tasks_R[half_R == half])
            found.append(grouped(gains_NM, self.columns_M).labels_N)
        return found

    def _advantage(self, losses_RM: np.ndarray, of_halves: list[np.ndarray]) -> float:
        """Returns how many nats a row loses less along the mean of its task's mates than along that of all.

        Mates of rows are found on the other half of their task's rows: on the same rows, experts that fit
        noise by chance would look like help. Over rows of tasks with mates; 0 if there are none.
        """
        half_R, M = halves(self.tasks_R), len(self.columns_M)
        every_NM, saved = np.full((len(self.tasks), M), 1 / M), []
        for half in (0, 1):
            mates_NM = mates(of_halves[1 - half], self.columns_M)
            rows = np.flatnonzero((half_R == half) & mates_NM.any(axis=1)[self.tasks_R])
            if len(rows):
                saved.append(self._losses_along(every_NM, rows) - self._losses_along(mates_NM, rows))
        return float(np.concatenate(saved).mean()) if saved else 0.0

    def _gains(self, losses_RM: np.ndarray, tasks_R: np.ndarray) -> np.ndarray:
        return gains(losses_RM, tasks_R, len(self.tasks), self.columns_M)

    def _losses_along(self, weights_NM: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Returns the losses of some rows, each along its task's weights of the compared experts."""
        weights = torch.from_numpy(weights_NM).to(self.routes_NLE)
        means_NLE = torch.einsum("nm,mle->nle", weights, self.routes_NLE[self.columns_M])
        examples = self.rows.subset(rows)
        return losses_of_tasks(self.model, examples, means_NLE, self.accelerator, "losses along means")


def halves(tasks_R: np.ndarray) -> np.ndarray:
    """Returns 0 or 1 for each row (R,), in turns among the rows of a task."""
    return pd.Series(tasks_R).groupby(tasks_R).cumcount().to_numpy() % 2


def summary_of(run: Path, contested: Contested | None) -> dict:
    """Returns the fields of transfer.json about the run and its contested rows."""
    share = {"contested": round(contested.share, 4), "contested_above": contested.above} if contested else {}
    return {"run": str(run)} | share
