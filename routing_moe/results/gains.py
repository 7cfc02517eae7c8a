"""Gains of fine-tuned systems over a baseline, per task and on average.

The relative gain of a task is (system - baseline) / baseline, of the mean scores over its samples; the mean
over tasks is the average relative gain, ARG (Ye, Lin and Ren, CrossFit, 2021). ARG leaves out tasks whose
baseline is near zero, or negative as a correlation can be. Systems are paired with the baseline by seed.
"""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.errors import InputError, Problems, did_you_mean, in_short, problem_context
from routing_moe.config.measures import MEASURES
from routing_moe.config.tables import GainSettings
from routing_moe.io.files import distinct_paths, distinct_tails
from routing_moe.results.comparison import EXPLAINED, LINE_WIDTH, shown_difference, shown_number
from routing_moe.results.markdown import markdown_table, mean_and_std, shown_p
from routing_moe.results.runs import find_run_folders
from routing_moe.results.scores import ScoresFile
from routing_moe.results.statistics import AUTO, holm, mean_interval

SUMMARY = "summary.csv"
MIN_BASELINE = 0.01
MARK = "†"  # marks tasks without a relative gain
DECIMALS = 12  # of differences: smaller ones are rounding errors and would turn ties into losses
OF_SEED = "difference_seed"  # starts the names of columns
Systems = dict[str, dict[int | str, Path]]  # {system: {seed, 0 without seeds: summary}}, the baseline first


# ---- statistics


def relative_gains(system, baseline, min_baseline: float = MIN_BASELINE) -> pd.Series:
    """Returns (system - baseline) / baseline per task; NaN where the baseline is not above min_baseline."""
    system, baseline = pd.Series(system, dtype=float), pd.Series(baseline, dtype=float)
    return (system - baseline).round(DECIMALS) / baseline.where(baseline > min_baseline)


def gains_per_task(
    by_seed: dict[str, dict[int | str, pd.DataFrame]], tasks: list[str], min_baseline: float = MIN_BASELINE
) -> pd.DataFrame:
    """Returns one row per task and system, in the order of `tasks`, with differences to the baseline.

    by_seed: {name: {seed: summary}}, the baseline first. in_arg: whether the relative gain is defined. With
    several seeds, scores and differences are means over the seeds that system and baseline share; the
    relative gain is the mean difference / the mean baseline, so that a low score of the baseline with one
    seed does not weigh more; stds are root mean squares; n and baseline_n are those of the first seed in
    which they differ, else of the first seed. Further columns: seeds and difference_seed<seed>.
    """
    (base_name, base), *systems = by_seed.items()
    several, tables = len({seed for summaries in by_seed.values() for seed in summaries}) > 1, []
    for name, summaries in systems:
        pairs = {seed: _paired(base[seed], summaries[seed], tasks) for seed in base if seed in summaries}
        if not pairs:
            raise InputError(f"{name}: no seed in common with {base_name}")
        table = next(iter(pairs.values())).copy()
        table.insert(0, "system", name)
        if several:
            for column in ("baseline", "score", "difference"):
                table[column] = np.mean([pair[column] for pair in pairs.values()], axis=0)
            table["difference"] = table["difference"].round(DECIMALS)
            for column in ("baseline_std", "std"):
                table[column] = np.sqrt(np.mean([pair[column] ** 2 for pair in pairs.values()], axis=0))
            for pair in reversed(pairs.values()):
                for column in ("baseline_n", "n"):
                    table[column] = table[column].mask(_are_uneven(pair), pair[column])
        table["relative_gain"] = relative_gains(table["score"], table["baseline"], min_baseline)
        table["in_arg"] = table["relative_gain"].notna()
        if several:
            table["seeds"] = len(pairs)
            table = table.assign(**{f"{OF_SEED}{seed}": pair["difference"] for seed, pair in pairs.items()})
        tables.append(table.reset_index())
    rows = pd.concat(tables, ignore_index=True)
    return rows.sort_values(
        "task", kind="stable", key=lambda names: names.map(tasks.index), ignore_index=True
    )


def _paired(baseline: pd.DataFrame, summary: pd.DataFrame, tasks: list[str]) -> pd.DataFrame:
    """Returns the numbers of both summaries, and their differences, of each task."""
    names = {"mean": "baseline", "std": "baseline_std", "n": "baseline_n"}
    pair = baseline.loc[tasks, [*names]].rename(columns=names).rename_axis("task")
    pair = pair.join(summary.loc[tasks, [*names]].rename(columns={"mean": "score"}))
    pair["difference"] = (pair["score"] - pair["baseline"]).round(DECIMALS)
    return pair.astype({"baseline_n": "Int64", "n": "Int64"})


def differences_ST(rows: pd.DataFrame) -> np.ndarray:
    """Returns the differences of a system's tasks to the baseline, seeds x tasks."""
    by_seed = rows.filter(like=OF_SEED).dropna(axis="columns", how="all")
    return np.atleast_2d(rows["difference"]) if by_seed.empty else by_seed.to_numpy().T


def with_most_seeds(rows: pd.DataFrame) -> pd.Series:
    """Returns the row whose baseline, which tables show, is the mean over the most seeds."""
    return rows.loc[rows["seeds"].idxmax()] if "seeds" in rows else rows.iloc[0]


def gains_per_system(per_task: pd.DataFrame, design: str = AUTO, lower_is_better: bool = False):
    """Returns a row per system: ARG and median of n - excluded relative gains, differences of all n tasks.

    low, high and interval are of ARG, difference_low, difference_high, difference_interval, p and
    detectable of the mean difference (`statistics.mean_interval`); p_holm is corrected over the systems.
    """
    rows, sign = {}, -1 if lower_is_better else 1
    for name, group in per_task.groupby("system", sort=False):
        defined = group[group["in_arg"]]
        gains, differences = defined["relative_gain"], group["difference"]
        interval = mean_interval(differences_ST(defined) / defined["baseline"].to_numpy(), design)
        test = mean_interval(differences_ST(group), design)
        rows[name] = {
            "arg": gains.mean(),
            "low": interval.low,
            "high": interval.high,
            "median": gains.median(),
            "wins": (sign * differences > 0).sum(),
            "losses": (sign * differences < 0).sum(),
            "ties": (differences == 0).sum(),
            "difference": differences.mean(),
            "difference_low": test.low,
            "difference_high": test.high,
            "p": test.p,
            "detectable": test.detectable,
            "difference_interval": test.over,
            "n": len(group),
            "excluded": len(group) - len(gains),
            "baseline": group["baseline"].mean(),
            "score": group["score"].mean(),
            "interval": interval.over,
            **({"seeds": group["seeds"].iloc[0]} if "seeds" in group else {}),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("system").reset_index()
    return table.assign(p_holm=holm(table["p"]))


# ---- systems and tasks


def systems_of(settings: GainSettings) -> Systems:
    """Returns the summaries of the systems. Raises InputError for flags that name none, or no baseline."""
    flags = [f"--{name}" for name in ("summary1", "summary2", "names") if getattr(settings, name)]
    if settings.folders:
        if flags:
            raise InputError(f"{' '.join(flags)}: for summaries that are named, not for those of folders")
        return _systems_of_runs(settings)
    if settings.baseline and flags:
        wrong = f"--baseline {settings.baseline}: for systems of FOLDER"
        raise InputError(f"{wrong}; of summaries, --summary1 is the baseline")
    if not (settings.summary1 and settings.summary2):
        raise InputError("name folders with runs, or summaries by --summary1 and --summary2")
    paths = [settings.summary1, *settings.summary2]
    with problem_context("--summary2 "):
        tails = distinct_tails(distinct_paths(paths))
    names = settings.names or [str(Path(tail).with_suffix("")) for tail in tails]
    if not len(paths) == len(names) == len(set(names)):
        raise InputError(f"--names {' '.join(names)}: expected {len(paths)} different names")
    return {name: {0: path} for name, path in zip(names, paths, strict=True)}


def _systems_of_runs(settings: GainSettings) -> Systems:
    part = settings.metric.partition("_")[0]
    problems, lacking, systems = Problems(), Problems(), {}
    having = [folder for folder in settings.folders if lacking.of(find_run_folders, [folder], SUMMARY)]
    if having and lacking:
        raise InputError([f"{line}; {having[0]} has {SUMMARY}, so each folder needs one" for line in lacking])
    for file in (SUMMARY, ScoresFile(part, "test").path, ScoresFile(part).path):
        if runs := problems.of(find_run_folders, settings.folders, file):
            break
    else:
        raise InputError(dict.fromkeys(problems))
    for run in runs:
        files, seed = systems.setdefault(run.variant, {}), run.name.removeprefix("seed")
        if seed in files:
            both = f"{files[seed]} and {run.folder / file} are both of seed {seed}"
            raise InputError(f"{both} of {run.variant}; keep only one of them there")
        files[seed] = run.folder / file
    first = next(iter(systems)) if len(settings.folders) > 1 else None
    baseline = settings.baseline or first
    if baseline not in systems:
        wrong = f" {baseline}: no such system{did_you_mean(baseline, systems)}" if baseline else " is missing"
        raise InputError(f"--baseline{wrong} (there are {', '.join(systems)})")
    if len(systems) == 1:
        raise InputError(f"{baseline} is the only system with {file}")
    if first and all(len(files) == 1 for files in systems.values()):  # also of different seeds
        systems = {name: dict.fromkeys([0], *files.values()) for name, files in systems.items()}
    return {baseline: systems[baseline]} | systems


def common_tasks(summaries: dict[str, pd.DataFrame], metric: str) -> tuple[list[str], list[str]]:
    """Returns the tasks with a mean in every summary, in the baseline's order, and a line per missing one."""
    means = pd.DataFrame({name: summary["mean"] for name, summary in summaries.items()})
    means = means.reindex(dict.fromkeys(task for summary in summaries.values() for task in summary.index))
    lacking = {name: means.index[means[name].isna()] for name in means}
    lines = [f"{name}: no {metric} of {', '.join(tasks)}" for name, tasks in lacking.items() if len(tasks)]
    return list(means.dropna().index), lines


def missing_seeds(systems: Systems) -> list[str]:
    """Returns a line for each system without a summary of a seed that another system has."""
    every = dict.fromkeys(seed for files in systems.values() for seed in files)
    lacking = {name: [str(seed) for seed in every if seed not in files] for name, files in systems.items()}
    return [f"{name}: no summary of seed {', '.join(missed)}" for name, missed in lacking.items() if missed]


def uneven_samples(per_task: pd.DataFrame) -> list[str]:
    """Returns a warning naming tasks whose means are over different numbers of samples, if any."""
    tasks = list(per_task.loc[_are_uneven(per_task), "task"].unique())
    return [f"warning: means are over unequal numbers of samples in {in_short(tasks)}"] if tasks else []


def _are_uneven(per_task: pd.DataFrame) -> pd.Series:
    return (per_task["n"] != per_task["baseline_n"]).fillna(False)


# ---- Markdown


def explain_gains(per_task: pd.DataFrame, baseline: str, metric: str, min_baseline: float) -> list[str]:
    """Returns lines that explain the tables and say which tasks ARG leaves out."""
    counts = sorted({*per_task["baseline_n"].dropna(), *per_task["n"].dropna()})
    n = f"n = {counts[0]}{f' to {counts[-1]}' if len(counts) > 1 else ''}" if counts else "n not known"
    better = "; lower is better" if is_loss(metric) else ""
    sentences = [
        f"Gain over {baseline}: (system - baseline) / baseline. ARG: mean of the gains, all tasks with equal "
        "weight. A few small baselines can dominate it; compare the median gain.",
        f"Difference: mean over tasks (and seeds); {EXPLAINED} p: the corresponding t test; p (Holm): "
        "corrected for the number of systems. The interval of ARG has the same design.",
        "Scores are means over seeds. Gains are relative to the runs of the baseline with the same seeds; "
        "its scores shown are means over the most seeds of a system."
        if "seeds" in per_task
        else "",
        f"If the baseline is at or below {min_baseline:g} (marked {MARK}), the gain is not defined; the "
        "difference is shown, and counts in means, wins, losses and p, but not in ARG and median.",
    ]
    wrapped = [line for sentence in sentences for line in textwrap.wrap(sentence, LINE_WIDTH)]
    return [f"Mean {metric} ± sample std over samples ({n}){better}.", *wrapped]


def is_loss(metric: str) -> bool:
    """Whether lower values of a column of summaries, such as test_answer_loss, are better."""
    return MEASURES[metric.partition("_")[2]].lower_is_better


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
    rows = {baseline: {"mean": f"{with_most_seeds(per_system)['baseline']:.3f}"}}
    for row in per_system.itertuples():
        rows[row.system] = {
            "mean": f"{row.score:.3f}",
            "ARG": shown_arg(row),
            "median gain": shown_gain(row.median),
            **{name: str(getattr(row, name)) for name in ("wins", "losses", "ties")},
            "difference": shown_difference(
                row.difference, row.difference_low, row.difference_high, row.difference_interval
            ),
            "detectable": shown_number(row.detectable),
            "p": shown_p(row.p),
            "p (Holm)": shown_p(row.p_holm),
            "tasks": str(row.n),
            "of them not in ARG": str(row.excluded),
            **({"seeds": str(row.seeds)} if "seeds" in per_system else {}),
        }
    return markdown_table(rows, "system")
