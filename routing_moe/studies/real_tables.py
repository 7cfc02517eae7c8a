"""The tables of the study on real tasks, of all finished runs, also of earlier calls."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dataloader.atomic_files import write_text
from routing_moe.studies.real_arms import ARMS, BASELINE
from routing_moe.studies.real_runs import Branches, dev_loss, rows_of_rates
from routing_moe.studies.real_settings import RealLabels
from routing_moe.studies.real_unseen import DIRECT, STARTS, SUMMARY, UnseenRuns
from routing_moe.studies.recipes import SCORES, UNSEEN_SCORES, command
from routing_moe.studies.runs import call_here

PRIMARY = ("answer_loss", "rank_accuracy")
MEASURES = (*PRIMARY, "performance")
RANDOM = ("random_1", "random_2")
ONE_BART = (BASELINE, "multitask_half", "multitask_double")


def tables_of_arms(runs: Branches) -> int:
    """Writes the tables of a part about train tasks; returns the exit code."""
    folder, tables = runs.folder, runs.folder / "tables"
    write_rows(folder / "tuning.csv", rows_of_rates(runs))
    losses = dev_losses(folder / "runs")
    if BASELINE not in losses:
        return 1
    contrasts = contrasts_of(losses)
    lowest = sorted(losses, key=losses.get)[:3]
    print("lowest dev answer loss:", ", ".join(f"{name} {losses[name]:.3f}" for name in lowest))
    shared = dict(
        order=tuple(losses),
        baseline=BASELINE,
        contrasts=contrasts or None,
        measures=MEASURES,
        primary=PRIMARY,
        design="seeds",
    )
    learnable = f"{BASELINE}:{runs.study.margin:g}"  # by dev scores, so that only test scores are compared so
    code = 0
    for part in ("dev", "test"):
        compared = command(
            *("routing_moe.cli.compare_runs", folder / "runs"),
            **dict(part=part, output_dir=tables / part, learnable=learnable if part == "test" else None),
            **shared,
        )
        code = call_here(compared) or code
    if isinstance(runs.study, RealLabels):
        pairs = command(
            "routing_moe.studies.permuted_twins",
            folder / "runs",
            relabelled=runs.gym,
            output_file=tables / "pairs.csv",
        )
        code = call_here(pairs) or code
    return code


def dev_losses(folder: Path) -> dict[str, float]:
    """Returns {arm: mean dev answer loss of its finished runs}, in the order of the table of arms."""
    finished = {name: [path.parents[1] for path in folder.glob(f"{name}/*/{SCORES}")] for name in ARMS}
    return {name: float(np.mean([dev_loss(run) for run in runs])) for name, runs in finished.items() if runs}


def contrasts_of(losses: dict[str, float]) -> tuple[str, ...]:
    """Returns the contrasts beside those with multitask.

    The arm with the lowest dev answer loss of those that divide the tasks, minus the one BART with the lowest; each
    arm that divides them into the groups of `gradient` or into what became of them, minus random groups.
    losses: {arm: dev answer loss}.
    """
    dividing = [name for name in losses if ARMS[name].steps != "plain" or ARMS[name].has_lora]
    contrasts = []
    if dividing:
        best = min(dividing, key=losses.get)
        contrasts.append((best, min((name for name in ONE_BART if name in losses), key=losses.get)))
    grouped = [name for name in ("gradient", "refined", "refined_random", "ontology") if name in losses]
    contrasts += [(name, other) for name in grouped for other in RANDOM if other in losses]
    contrasts += [("lora_gradient", "lora_random")] * ({"lora_gradient", "lora_random"} <= set(losses))
    wanted = dict.fromkeys(pair for pair in contrasts if pair[1] != BASELINE)
    return tuple(f"{first}:{second}" for first, second in wanted)


def write_rows(path: Path, rows: Iterable[dict]) -> None:
    rows, text = list(rows), io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(path, text.getvalue())


def tables_of_starts(runs: UnseenRuns) -> int:
    """Writes the tables of the part about unseen tasks; returns the exit code."""
    finished = {
        name: {path.parent.name for path in runs.folder.glob(f"few_shot/{name}/*/{SUMMARY}")}
        for name in STARTS
    }
    common = finished[BASELINE]
    others = [name for name in STARTS if name != BASELINE and finished[name] & common]
    if not others:
        return 1
    first, *files = (runs.folder / "few_shot" / name / "seed{seed}" / SUMMARY for name in (BASELINE, *others))
    baselines = runs.folder / "baselines" / UNSEEN_SCORES.replace("-test-", "-dev-")
    code = 0
    for measure in MEASURES:
        gains = command(
            "routing_moe.cli.compute_arg",
            **dict(
                summary1=first, summary2=tuple(files), names=(BASELINE, *others), metric=f"test_{measure}"
            ),
            **dict(seeds=tuple(sorted(name.removeprefix("seed") for name in common)), design="seeds"),
            **dict(learnable=f"{DIRECT}:{runs.study.margin:g}" if DIRECT in others else None),
            **dict(dev_baselines=baselines if DIRECT in others else None),
            output_file=runs.folder / "tables" / f"{measure}.csv",
        )
        code = call_here(gains) or code
    return code
