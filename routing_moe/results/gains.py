"""Gains of fine-tuned systems over a baseline, per task and on average.

The relative gain of a task is (system - baseline) / baseline, of the mean scores over its samples; the mean
over tasks is the average relative gain, ARG (Ye, Lin and Ren, CrossFit, 2021). It is not meaningful if the
baseline is near zero, or negative as a correlation can be; ARG leaves such tasks out.

Below, `summaries` is {name: `summaries.read_summary`}, the baseline first; `per_task` has a row per task and
system, `per_system` a row per system. With several seeds, systems are paired with the baseline by seed.
"""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.errors import InputError, in_short
from routing_moe.config.choices import LOWER_IS_BETTER
from routing_moe.io.files import distinct_tails
from routing_moe.results.contrasts import EXPLAINED, LINE_WIDTH, shown_difference, shown_number
from routing_moe.results.markdown import markdown_table, mean_and_std, shown_p
from routing_moe.results.statistics import AUTO, holm, mean_interval

NUMBERS = ["mean", "std", "n"]  # columns of a summary
MIN_BASELINE = 0.01
MARK = "†"  # marks tasks without a relative gain
DECIMALS = 12  # of differences: smaller ones are rounding errors and would turn ties into losses
OF_SEED = "difference_seed"  # starts the names of columns


# ---------------------------------------------------------------------------- statistics


def differences_of(system, baseline) -> np.ndarray:
    """Returns system - baseline, rounded to DECIMALS so that the order of addition has no effect."""
    return np.round(np.asarray(system, dtype=float) - np.asarray(baseline, dtype=float), DECIMALS)


def relative_gains(system, baseline, min_baseline: float = MIN_BASELINE) -> np.ndarray:
    """Returns (system - baseline) / baseline per task; NaN where the baseline is not above min_baseline."""
    baseline = np.asarray(baseline, dtype=float)
    defined = baseline > min_baseline
    return np.where(defined, differences_of(system, baseline) / np.where(defined, baseline, 1.0), np.nan)


def gains_per_task(
    summaries: dict[str, pd.DataFrame], tasks: list[str], min_baseline: float = MIN_BASELINE
) -> pd.DataFrame:
    """Returns one row per task and system, in the order of `tasks`, with differences to the first summary.

    Columns task, system, baseline, baseline_std, baseline_n, score, std, n, difference, relative_gain (NaN
    if it is undefined) and in_arg (whether it is defined).
    """
    (_, baseline), *systems = summaries.items()
    base = baseline.loc[tasks, NUMBERS].add_prefix("baseline_").rename(columns={"baseline_mean": "baseline"})
    tables = []
    for name, summary in systems:
        scores = summary.loc[tasks, NUMBERS].rename(columns={"mean": "score"})
        table = pd.concat([base, scores], axis=1).rename_axis("task").reset_index()
        table.insert(1, "system", name)
        table["difference"] = differences_of(table["score"], table["baseline"])
        table["relative_gain"] = relative_gains(table["score"], table["baseline"], min_baseline)
        tables.append(table.assign(in_arg=table["relative_gain"].notna()))
    return _by_task(tables).astype({"baseline_n": "Int64", "n": "Int64"})


def _by_task(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Returns the tables of systems as one, task by task."""
    rank = {task: number for number, task in enumerate(tables[0]["task"])}
    rows = pd.concat(tables, ignore_index=True)
    return rows.sort_values("task", key=lambda names: names.map(rank), kind="stable", ignore_index=True)


def gains_over_seeds(
    by_seed: dict[str, dict[int, pd.DataFrame]], tasks: list[str], min_baseline: float = MIN_BASELINE
) -> pd.DataFrame:
    """Returns `gains_per_task` of means over seeds, with differences to the baseline of the same seed.

    by_seed: {name: {seed: summary}}, the baseline first. Means are over the seeds that system and baseline
    share, so the baseline of a task may differ between systems. The relative gain is the mean difference /
    the mean baseline, so that a low score of the baseline with one seed does not weigh more. stds are root
    mean squares over seeds. n and baseline_n are those of the first seed in which they differ, else of the
    first seed. More columns: seeds (their number) and difference_seed<seed>. Raises InputError for a system
    without a common seed.
    """
    (base_name, base), *systems = by_seed.items()
    if apart := [name for name, summaries in systems if not base.keys() & summaries.keys()]:
        raise InputError(f"{name}: no seed in common with {base_name}" for name in apart)
    tables = []
    for name, summaries in systems:
        pairs = {s: {base_name: base[s], name: summaries[s]} for s in base if s in summaries}
        gains = {seed: gains_per_task(pair, tasks) for seed, pair in pairs.items()}
        table = next(iter(gains.values())).assign(seeds=len(gains))
        for column in ("baseline", "score", "difference"):
            table[column] = np.mean([of_seed[column] for of_seed in gains.values()], axis=0)
        for column in ("baseline_std", "std"):
            table[column] = np.sqrt(np.mean([of_seed[column] ** 2 for of_seed in gains.values()], axis=0))
        for of_seed in reversed(gains.values()):
            for column in ("baseline_n", "n"):
                table[column] = table[column].mask(_are_uneven(of_seed), of_seed[column])
        table["relative_gain"] = relative_gains(table["score"], table["baseline"], min_baseline)
        table["in_arg"] = table["relative_gain"].notna()
        for seed, of_seed in gains.items():
            table[f"{OF_SEED}{seed}"] = of_seed["difference"]
        tables.append(table)
    return _by_task(tables)


def differences_ST(rows: pd.DataFrame) -> np.ndarray:
    """Returns the differences of a system's tasks to the baseline, seeds x tasks."""
    by_seed = rows.filter(like=OF_SEED).dropna(axis="columns", how="all")
    return np.atleast_2d(rows["difference"]) if by_seed.empty else by_seed.to_numpy().T


def with_most_seeds(rows: pd.DataFrame) -> pd.Series:
    """Returns the row whose baseline, which tables show, is the mean over the most seeds."""
    return rows.loc[rows["seeds"].idxmax()] if "seeds" in rows else rows.iloc[0]


def gains_per_system(
    per_task: pd.DataFrame, design: str = AUTO, lower_is_better: bool = False
) -> pd.DataFrame:
    """Returns one row per system, in the order of `per_task`.

    Of the n - excluded tasks with a relative gain: arg (mean relative gain), low and high (its 95% t
    interval, `statistics.mean_interval`, by the design), interval (what it covers, or why there is none),
    median. Of all n tasks: wins, losses, ties (signs of the differences), difference (mean), difference_low,
    difference_high, p, detectable, difference_interval (interval, test and smallest detectable effect of the
    difference, in the same design), p_holm (over the systems), baseline and score (means over tasks), seeds
    (if known).

    A task's samples are drawn from the same task, so their spread is part of the spread over tasks.
    """
    rows, sign = {}, -1 if lower_is_better else 1
    for name, group in per_task.groupby("system", sort=False):
        defined = group[group["in_arg"]]
        gains, differences = defined["relative_gain"], group["difference"]
        interval = mean_interval(differences_ST(defined) / defined["baseline"].to_numpy(), design)
        found = mean_interval(differences_ST(group), design)
        rows[name] = {
            "arg": gains.mean(),
            "low": interval.low,
            "high": interval.high,
            "median": gains.median(),
            "wins": int((sign * differences > 0).sum()),
            "losses": int((sign * differences < 0).sum()),
            "ties": int((differences == 0).sum()),
            "difference": differences.mean(),
            "difference_low": found.low,
            "difference_high": found.high,
            "p": found.p,
            "detectable": found.detectable,
            "difference_interval": found.over,
            "n": len(group),
            "excluded": len(group) - len(gains),
            "baseline": group["baseline"].mean(),
            "score": group["score"].mean(),
            "interval": interval.over,
            **({"seeds": group["seeds"].iloc[0]} if "seeds" in group else {}),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("system").reset_index()
    return table.assign(p_holm=holm(table["p"]))


# ---------------------------------------------------------------------------- systems and tasks


def system_names(paths: list[Path]) -> list[str]:
    """Returns the files' names without extension, each with as many parent folders as needed to be unique."""
    unique = list(dict.fromkeys(path.resolve().with_suffix("") for path in paths))
    names = dict(zip(unique, distinct_tails(unique), strict=True))
    return [names[path.resolve().with_suffix("")] for path in paths]


def common_tasks(summaries: dict[str, pd.DataFrame], metric: str) -> tuple[list[str], list[str]]:
    """Returns the tasks with a mean in every summary, in the baseline's order, and a line per missing one."""
    every = list(dict.fromkeys(task for summary in summaries.values() for task in summary.index))
    common = list(every)
    lines = []
    for name, summary in summaries.items():
        absent = [task for task in every if task not in summary.index]
        unscored = list(summary.index[summary["mean"].isna()])
        lines += [f"{name}: lacks {', '.join(absent)}"] if absent else []
        lines += [f"{name}: no mean {metric} of {', '.join(unscored)}"] if unscored else []
        common = [task for task in common if task not in {*absent, *unscored}]
    return common, lines


def uneven_samples(per_task: pd.DataFrame) -> list[str]:
    """Returns a warning naming tasks whose means are over different numbers of samples, if any."""
    rows = per_task[_are_uneven(per_task)].itertuples()
    where = [f"{row.task} ({row.system} {row.n}, baseline {row.baseline_n})" for row in rows]
    return [f"warning: means are over unequal numbers of samples: {in_short(where)}"] if where else []


def _are_uneven(per_task: pd.DataFrame) -> pd.Series:
    return (per_task["n"] != per_task["baseline_n"]).fillna(False)


# ---------------------------------------------------------------------------- Markdown

OVER_SEEDS = (
    "Scores are means over seeds. Gains are relative to the runs of the baseline with the same seeds; the",
    "baseline's scores shown are means over the most seeds of a system.",
)


def explain_gains(per_task: pd.DataFrame, baseline: str, metric: str, min_baseline: float) -> list[str]:
    """Returns lines that explain the tables and say which tasks ARG leaves out."""
    counts = pd.concat([per_task["baseline_n"], per_task["n"]]).dropna()
    n = "n not known" if counts.empty else f"n = {counts.min()}"
    n += f" to {counts.max()}" if not counts.empty and counts.min() < counts.max() else ""
    better = "; lower is better" if is_loss(metric) else ""
    differences = (
        f"Difference: mean over tasks (and seeds); {EXPLAINED} p: the corresponding t test; p (Holm): "
        "corrected for the number of systems. The interval of ARG has the same design."
    )
    return [
        f"Mean {metric} ± sample std over samples ({n}){better}.",
        f"Gain over {baseline}: (system - baseline) / baseline. ARG: mean of the gains, all tasks with equal",
        "weight. A few small baselines can dominate it; compare the median gain.",
        *textwrap.wrap(differences, LINE_WIDTH),
        *(OVER_SEEDS if "seeds" in per_task else ()),
        f"If the baseline is at or below {min_baseline:g} (marked {MARK}), the gain is not defined; the",
        "difference is shown, and counts in means, wins, losses and p, but not in ARG and median.",
    ]


def is_loss(metric: str) -> bool:
    """Whether lower values of a column of summaries, such as test_answer_loss, are better."""
    return metric.partition("_")[2] in LOWER_IS_BETTER


def shown_gain(gain: float) -> str:
    """Returns a gain such as "+12.3%", or "-" for NaN."""
    return "-" if np.isnan(gain) else f"{100 * gain:+.1f}%"


def shown_arg(row) -> str:
    """Returns "+12.3% [+3.4%, +20.1%]" for a row of `per_system`, or "+12.3%, too few tasks (3)"."""
    if np.isnan(row.arg):
        return shown_gain(row.arg)
    if np.isnan(row.low):
        return f"{shown_gain(row.arg)}, {row.interval}"
    return f"{shown_gain(row.arg)} [{shown_gain(row.low)}, {shown_gain(row.high)}]"


def shown_mean_difference(row) -> str:
    """Returns the mean difference of a row of `per_system`, with its interval, as tables of contrasts do."""
    names = {"difference": "difference", "low": "difference_low", "high": "difference_high"}
    names["interval"] = "difference_interval"
    return shown_difference({name: getattr(row, column) for name, column in names.items()})


def shown_task_gain(row) -> str:
    """Returns the relative gain of a row of `per_task`, or its difference with MARK."""
    return shown_gain(row.relative_gain) if row.in_arg else f"{row.difference:+.3f} {MARK}"


def tasks_markdown(per_task: pd.DataFrame, baseline: str) -> str:
    """Returns a Markdown table with a row per task: baseline score, then score and gain of each system."""
    rows = {}
    for task, group in per_task.groupby("task", sort=False):
        first = with_most_seeds(group)
        cells = {baseline: mean_and_std(first["baseline"], first["baseline_std"])}
        for row in group.itertuples():
            cells[row.system] = f"{mean_and_std(row.score, row.std)} ({shown_task_gain(row)})"
        rows[task] = cells
    return markdown_table(rows, "task")


def systems_markdown(per_system: pd.DataFrame, baseline: str) -> str:
    """Returns a Markdown table with a row per system: mean score, ARG, wins, difference, p, tasks."""
    first = with_most_seeds(per_system)
    counts = ("wins", "losses", "ties")
    rows = {baseline: {"mean": f"{first['baseline']:.3f}"}}
    for row in per_system.itertuples():
        rows[row.system] = {
            "mean": f"{row.score:.3f}",
            "ARG": shown_arg(row),
            "median gain": shown_gain(row.median),
            **{name: str(getattr(row, name)) for name in counts},
            "difference": shown_mean_difference(row),
            "detectable": shown_number(row.detectable),
            "p": shown_p(row.p),
            "p (Holm)": shown_p(row.p_holm),
            "tasks": str(row.n),
            "of them not in ARG": str(row.excluded),
            **({"seeds": str(row.seeds)} if "seeds" in per_system else {}),
        }
    return markdown_table(rows, "system")
