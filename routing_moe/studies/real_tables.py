"""The tables of the study on real tasks, of all finished runs, also of earlier calls."""

import sys
from pathlib import Path

import pandas as pd

from dataloader.atomic_files import write_text
from routing_moe.studies.gains import gains_command
from routing_moe.studies.real_arms import ARMS, ONE, ONE_BART
from routing_moe.studies.real_runs import Branches, best_dividing, dev_losses, rows_of_rates
from routing_moe.studies.real_starts import DIRECT, STARTS
from routing_moe.studies.real_unseen import SUMMARY, UnseenRuns
from routing_moe.studies.recipes import UNSEEN_SCORES, command
from routing_moe.studies.runs import call_here

PRIMARY = ("answer_loss", "rank_accuracy")
MEASURES = (*PRIMARY, "performance")


def tables_of_arms(runs: Branches) -> int:
    """Writes the tables of a part about train tasks; returns the exit code."""
    folder, tables = runs.folder, runs.folder / "tables"
    if len(rates := pd.DataFrame(rows_of_rates(runs))):
        write_text(folder / "tuning.csv", rates.to_csv(index=False))
    losses = dev_losses(folder / "runs")
    if ONE not in losses:
        print(f"no table: {ONE} has no finished run with a seed of all arms", file=sys.stderr)
        return 1
    contrasts = contrasts_of(losses)
    lowest = sorted(losses, key=losses.get)[:3]
    print("lowest dev answer loss:", ", ".join(f"{name} {losses[name]:.3f}" for name in lowest), flush=True)
    compared = command(
        *("routing_moe.cli.compare_runs", folder / "runs"),
        **dict(order=tuple(losses), baseline=ONE, contrasts=contrasts or None, measures=MEASURES),
        **dict(primary=PRIMARY, learnable=f"{ONE}:{runs.study.margin:g}", output_dir=tables),
    )
    return call_here(compared)


def best_of_one(losses: dict[str, float]) -> str:
    """Returns the rate of one BART with the lowest dev answer loss, by the name of the arm."""
    return min((name for name in ONE_BART if name in losses), key=losses.get)


def contrasts_of(losses: dict[str, float]) -> tuple[str, ...]:
    """Returns the contrasts beside those with multitask.

    The best arm that divides the tasks, and the oracle, minus the best of one BART; each arm minus its control, groups
    of gradients also minus the second draw. Best: with the lowest dev answer loss. losses: {arm: dev answer loss}.
    """
    one = best_of_one(losses)
    pairs = [(name, one) for name in (best_dividing(losses), "oracle") if name in losses]
    pairs += [(name, ARMS[name].control) for name in losses if ARMS[name].control in losses]
    pairs += [("gradient", "random_2")] * ({"gradient", "random_2"} <= set(losses))
    return tuple(f"{first}:{second}" for first, second in dict.fromkeys(pairs) if second != ONE)


def tables_of_starts(runs: UnseenRuns) -> int:
    """Writes the tables of the part about unseen tasks, few-shot and zero-shot; returns the exit code."""
    tables = runs.folder / "tables"
    gains = gains_of_starts(runs, "few_shot", SUMMARY, tables)
    gains += gains_of_starts(runs, "zero_shot", UNSEEN_SCORES, tables / "zero_shot")
    if not gains:
        print(f"no table: {ONE} and another start have no finished run of the same seed", file=sys.stderr)
        return 1
    codes = [call_here(gain) for gain in gains]
    return next((code for code in codes if code), 0)


def gains_of_starts(runs: UnseenRuns, shots: str, scores: str, tables: Path) -> list[list[str]]:
    """Returns the commands that compare the starts with `multitask`, one for each measure; [] without runs.

    shots: folder of the runs. scores: their file. tables: folder of the tables.
    """
    baselines = runs.folder / "baselines" / UNSEEN_SCORES.replace("-test-", "-dev-")
    learnable = command(learnable=f"{DIRECT}:{runs.study.margin:g}", dev_baselines=baselines)
    gains = (
        gains_command(
            runs.folder / shots, ONE, STARTS, scores,
            metric=f"test_{measure}", output_file=tables / f"{measure}.csv",
        )
        for measure in MEASURES
    )  # fmt: skip
    return [[*gain, *(learnable if DIRECT in gain else ())] for gain in gains if gain]
