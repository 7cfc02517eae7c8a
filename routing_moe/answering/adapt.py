"""Chooses one of many adapters by labelled rows, mixes them, or trains one; writes a single adapter.

    losses/NAME.npy        along each candidate: the losses of the rows (nats), and whether the best option is
                           right (NaN without options)
    losses/(fold 1).npy    losses of the rows of a fold, along what was learned from the others
    job.json, adapt.json   what these are of; the result

R rows, C candidates: the base and the adapters. L layers, E experts.
"""

import json
import logging
import math
import shutil
import zlib
from collections.abc import Mapping
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import GroupKFold
from torch import Tensor, nn

from dataloader.atomic_files import LOCK_FILE, PARTIAL, folder_lock, write_text
from dataloader.encoding import encode
from dataloader.errors import InputError, counted, in_short, problem_context
from dataloader.gym import Example
from dataloader.progress import ProgressBar
from routing_moe.answering.export import export_adapter
from routing_moe.answering.queries import Query, RoutedTask
from routing_moe.answering.routed import Routed
from routing_moe.checkpoints.adapter_texts import keep_texts
from routing_moe.checkpoints.assemble import Model, made_of, mixture_of_adapters
from routing_moe.checkpoints.find import checksums
from routing_moe.config.adapt import BASE, CHOOSE, MIX, TUNE, AdaptSettings
from routing_moe.config.shared import StepSettings
from routing_moe.evaluation.route_losses import losses_along
from routing_moe.io.accelerator import make_accelerator
from routing_moe.io.arrays import load_array
from routing_moe.io.files import npy_bytes, replacing_directory, restore_previous
from routing_moe.io.job_folder import JOB_FILE, JobFolder, keep_same_job
from routing_moe.io.run_folder import describe_run
from routing_moe.model.conversion import with_shared_parameters
from routing_moe.model.gguf_adapter import architecture_of
from routing_moe.model.injection import OF_ATTENTION
from routing_moe.model.lora import is_of_expert
from routing_moe.model.mixtures import routes_of_experts
from routing_moe.optim.step import Stepper, TrainingDiverged
from routing_moe.results.statistics import bootstrap_interval
from routing_moe.task_choice.learned import BATCH_SIZE, learn_route

ADAPT_FILE = "adapt.json"
TUNED = "(tuned)"
CUT = (  # flag, what it cuts, lengths of encoded rows
    ("max_input_length", "input", "source_lengths_N"),
    ("max_output_length", "answer", "target_lengths_N"),
)
OF_JOB = (  # settings that the result depends on, beside texts and the content of files
    *("how", "folds", "steps", "rate", "tune_from", "lora_rank", "lora_targets", "seed", "rank"),
    *("mixed_precision", "input", "output", "as_"),
)
log = logging.getLogger("routing_moe")


def adapt(
    settings: AdaptSettings,
    examples: list[Example],
    base: Model,
    folders: Mapping[str, Path],
    texts: Mapping,
    command: list[str],
) -> None:
    """Writes the adapter to --output_dir, or continues this. texts: how texts are read, as far as known."""
    out, inputs = settings.output_dir, {example.input for example in examples}
    if as_gguf := settings.as_ == "gguf":
        architecture_of(base.config)
    if len(inputs) < 2:
        raise InputError(f"--rows {settings.rows} has one input; an interval needs at least 2")
    unused = {"rate": settings.how == CHOOSE and settings.rate is not None}
    unused |= {"tune_from": settings.how != TUNE and settings.tune_from != "best"}
    if given := [name for name, is_given in unused.items() if is_given]:
        raise InputError(f"--{given[0]}: --how {settings.how} does not use it; leave it out")
    if settings.how != CHOOSE and len(inputs) < settings.folds:
        found = counted(len(inputs), "different input")
        raise InputError(f"--folds is {settings.folds}, but the rows have {found}; give fewer folds")
    restore_previous(out)
    pieces = JobFolder(out / "losses", load_array, "compute it again", ".npy", partial(quote, safe=""))
    check_is_own(out, pieces)
    described = {name: getattr(settings, name) for name in OF_JOB} | dict(texts)
    described |= {"base": checksums(base), "adapters": made_of(folders)}
    described["data"] = zlib.crc32(repr(examples).encode())
    with folder_lock(out):
        keep_same_job(out, described, pieces)
        if (out / ADAPT_FILE).exists():
            return log.info("finished already: %s", out / ADAPT_FILE)
        adaptation = Adaptation(settings, examples, base, folders, texts, pieces)
        route_LE, chosen, report = adaptation.run()
        description = f"{chosen} of {len(folders)} adapters and the base"
        found = description, counted(len(examples), "labelled row"), adaptation.model.config.encoder_rows
        task = RoutedTask(settings.task, route_LE, *found, str(base.place), sorted(inputs))
        with replacing_directory(out) as finished:
            rank, error = export_adapter(adaptation.routed, task, finished, settings.rank, as_gguf)
            shutil.copytree(pieces.folder, finished / pieces.folder.name)
            shutil.copy(out / JOB_FILE, finished)
            report |= {"chosen": chosen, "rank": rank, "relative_error": error}
            content = describe_run(settings.to_dict(), command) | report
            write_text(finished / ADAPT_FILE, json.dumps(content, indent=1, default=str))
        log.info("wrote %s to %s", chosen, out)


def check_is_own(out: Path, pieces: JobFolder) -> None:
    """Raises InputError if an unfinished folder, which the finished one replaces, has files of others."""
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    own = {LOCK_FILE, JOB_FILE, pieces.folder.name} | {name for name in names if fnmatch(name, PARTIAL)}
    if ADAPT_FILE not in names and (others := sorted(names - own)):
        raise InputError(f"--output_dir {out} holds other files ({in_short(others)}); name a new folder")


class Adaptation:
    """A mixture of the candidates, of which one route is made. pieces: the losses that are kept.

    experts: {name: number}: the adapters, the base (0) and, with `tune`, one that is trained.
    """

    def __init__(self, settings: AdaptSettings, examples: list[Example], base: Model, folders, texts, pieces):
        self.settings, self.examples, self.pieces = settings, examples, pieces
        self.candidates, others, sizes = [BASE, *folders], [BASE], {}
        if settings.how == TUNE:
            others, sizes = [BASE, TUNED], dict(rank=settings.lora_rank, targets=settings.lora_targets)
        self.model = mixture_of_adapters("adapters", settings.base, base, folders, others, **sizes)
        keep_texts(self.model, texts, {}, "--adapters")
        self.routed = Routed.of(self.model, base, make_accelerator(settings.mixed_precision))
        self.experts = {name: expert for expert, name in enumerate([*folders, *others])}
        task_id = self.model.config.task_names.index(others[-1])  # training steps are along its route
        of_task = self.routed.tokenizer, self.routed.text_format, {settings.task: task_id}
        self.rows = encode(examples, *of_task)
        self._note_cut_rows(*of_task)

    def _note_cut_rows(self, tokenizer, text_format, task_ids: dict) -> None:
        whole = encode(self.examples, tokenizer, text_format.without_limits(), task_ids)
        for flag, what, lengths in CUT:
            if cut := int((getattr(whole, lengths) > getattr(self.rows, lengths)).sum()):
                limit = getattr(text_format, flag)
                log.info("note: %s of the rows cut to %d tokens (--%s)", counted(cut, what), limit, flag)

    def run(self) -> tuple[Tensor, str, dict]:
        """Returns (route (L, E), what it is, the tables of adapt.json)."""
        losses_CR, right_CR = self.candidate_losses()
        best, how = int(losses_CR.mean(axis=1).argmin()), self.settings.how
        route_LE, chosen = self.route(self.candidates[best]), f"{self.candidates[best]} (lowest loss)"
        table = compared(self.candidates, losses_CR, best, right_CR)
        report = {"rows": len(self.examples), "candidates": table.to_dict("index")}
        if how != CHOOSE:
            names = [f"{how}, by the other folds", "best on the other folds"]
            table = compared(names, self.fold_losses(losses_CR), 1)
            report["folds"] = table.to_dict("index")
            if table["difference"][names[0]] < 0:
                route_LE, chosen = self.learned(np.arange(len(self.rows)), self.candidates[best]), how
            else:
                log.info("%s is no better than the best candidate, which is written", how)
        route_LE[:, self.experts[BASE]] = 0  # it adds nothing to an adapter
        return route_LE, chosen, report

    def candidate_losses(self) -> np.ndarray:
        """Returns (2, C, R) the losses of the rows, and whether the best option is right."""
        found = []
        for name in ProgressBar(self.candidates, "losses", len(self.candidates), unit="candidate"):
            if (of_name := self.pieces.finished(name)) is None:
                route_LE, all_rows = self.route(name), np.arange(len(self.rows))
                with problem_context(f"{name}: "):
                    of_name = np.stack([self.losses(route_LE, all_rows), self.are_right(route_LE)])
                self.pieces.write(name, npy_bytes(of_name))
            found.append(of_name)
        return np.stack(found, axis=1)

    def fold_losses(self, losses_CR: np.ndarray) -> np.ndarray:
        """Returns (2, R) the losses along what was learned from other folds, and along the best on these."""
        losses_2R, inputs = np.zeros((2, len(self.examples))), [example.input for example in self.examples]
        folds = GroupKFold(self.settings.folds, shuffle=True, random_state=self.settings.seed)
        parts = folds.split(inputs, groups=inputs)  # rows of equal input are in one fold
        for fold, (seen, held) in ProgressBar(enumerate(parts), "folds", self.settings.folds, unit="fold"):
            best, piece = int(losses_CR[:, seen].mean(axis=1).argmin()), f"(fold {fold + 1})"
            if (found := self.pieces.finished(piece)) is None:
                found = self.losses(self.learned(seen, self.candidates[best]), held)
                self.pieces.write(piece, npy_bytes(found))
            losses_2R[:, held] = found, losses_CR[best, held]
        return losses_2R

    def route(self, name: str) -> Tensor:
        """Returns the route (L, E) of one expert in all layers."""
        return routes_of_experts(self.model)[self.experts[name]]

    def losses(self, route_LE: Tensor, rows: np.ndarray) -> np.ndarray:
        """Returns the losses of some rows in nats. Raises InputError if one is not finite."""
        accelerator = self.routed.accelerator
        losses_R = losses_along(self.model, self.rows.subset(rows), route_LE[None], accelerator)[:, 0]
        if not np.isfinite(losses_R).all():
            precision = f"--mixed_precision {accelerator.mixed_precision}"
            raise InputError(f"the loss of a row is not a number with {precision}; give another precision")
        return losses_R

    def are_right(self, route_LE: Tensor) -> np.ndarray:
        """Returns whether the best option of each row is accepted, 0 or 1; NaN without options."""
        if not self.examples[0].options:
            return np.full(len(self.examples), np.nan)
        task = RoutedTask(self.settings.task, route_LE, "", "", 0, str(self.routed.place))
        answers = self.routed.answers(task, [Query(e.input, e.options) for e in self.examples])
        return np.array([a.answer in e.outputs for a, e in zip(answers, self.examples, strict=True)], float)

    def learned(self, rows: np.ndarray, best: str) -> Tensor:
        """Returns the route (L, E) that is learned from some rows. best: the best candidate on them."""
        settings, examples, accelerator = self.settings, self.rows.subset(rows), self.routed.accelerator
        rate = settings.rate or (1.0 if settings.how == MIX else 3e-4)
        try:
            if settings.how == MIX:
                how = dict(steps=settings.steps, rate=rate, seed=settings.seed)
                choice = learn_route(self.model, settings.task, examples, accelerator=accelerator, **how)
                return torch.from_numpy(choice.route_LE).float().to(self.model.device)
            self.start_tuning(BASE if settings.tune_from == "new" else best)
            sizes = dict(train_batch_size=BATCH_SIZE, total_steps=settings.steps, seed=settings.seed)
            steps, alone = StepSettings(learning_rate=rate, weight_decay=0.0, **sizes), only_last(self.model)
            stepper = Stepper(alone, examples, steps, accelerator)
            for _ in stepper.run(settings.steps, desc="tuning", quiet=False):
                pass
        except TrainingDiverged:
            raise InputError(f"--rate {rate:g}: training diverged; give a lower one") from None
        for factor, (trained,) in zip(factors_of(self.model), factors_of(alone), strict=True):
            factor.data[-1] = trained
        return self.route(TUNED)

    @torch.no_grad()
    def start_tuning(self, start: str) -> None:
        """Sets the expert that is trained to a candidate; with the base, to a new adapter, which is drawn."""
        generator, expert = torch.Generator().manual_seed(self.settings.seed), self.experts[start]
        for layer in self.model.lora_layers:
            for name, linear in layer.linear_maps.items():
                A, B = linear.lora_A, linear.lora_B
                is_used = (B[expert] != 0).any(dim=1, keepdim=True)
                drawn = A[expert]
                if start == BASE:
                    kind = "attention" if OF_ATTENTION.search(name) else "feed_forward"
                    rank = self.settings.lora_rank if self.settings.lora_targets in ("all", kind) else 0
                    is_used = torch.arange(len(is_used), device=A.device)[:, None] < rank
                    drawn = torch.rand(A.shape[1:], generator=generator) * 2 - 1  # as in `add_updates`
                    drawn = (drawn / math.sqrt(linear.in_features)).to(A)
                # Other rows stay 0: without A and B, they have no gradient.
                A[-1], B[-1] = drawn * is_used, B[expert]


def only_last(model):
    """Returns a copy of a model that shares its base and has its last expert, so that no other is trained."""
    alone = with_shared_parameters(model)
    alone.config.num_experts = 1
    for layer in alone.lora_layers:
        for linear in layer.linear_maps.values():
            linear.lora_A, linear.lora_B = (
                nn.Parameter(factor.detach()[-1:].clone()) for factor in (linear.lora_A, linear.lora_B)
            )
    return alone


def factors_of(model) -> list[nn.Parameter]:
    """Returns the factors A and B of all low-rank experts of a model."""
    return [parameter for name, parameter in model.named_parameters() if is_of_expert(name)]


def compared(names: list[str], losses_CR: np.ndarray, reference: int, right_CR=None) -> pd.DataFrame:
    """Returns, and logs, the mean loss of each name, and its difference from a reference with an interval."""
    low_C, high_C = bootstrap_interval(losses_CR - losses_CR[reference]).T
    means_C = losses_CR.mean(axis=1)
    columns = {"loss": means_C, "difference": means_C - means_C[reference], "low": low_C, "high": high_C}
    if right_CR is not None and not np.isnan(right_CR).any():
        columns["rank_accuracy"] = right_CR.mean(axis=1)
    table = pd.DataFrame(columns, index=names).sort_values("loss", kind="stable")
    head = f"loss in nats per row, and its difference from {names[reference]} with a 95% interval"
    log.info("%s:\n%s", head, table.round(4).to_string())
    others = table.drop(names[reference])
    if unclear := others.index[(others["low"] <= 0) & (others["high"] >= 0)].tolist():
        log.info("these rows cannot distinguish from %s: %s", names[reference], in_short(unclear))
    return table
