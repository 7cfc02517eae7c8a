"""Variants compared over runs of several seeds: means by category, paired differences with intervals.

`scores` has one row per run and task: variant, run, seed, task, and a column per measure and baseline. A
measure's table is over the tasks that have it. A contrast (a, b) is a minus b, of runs with the same seed.
"""

import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dataloader.errors import InputError
from dataloader.ontology import ALL, Ontology
from routing_moe.config.measures import BASELINES, MEASURES, PERFORMANCE
from routing_moe.config.tables import CompareSettings
from routing_moe.results.markdown import markdown_table, mean_and_std, shown_p
from routing_moe.results.runs import Run, scores_per_sample, scores_per_task
from routing_moe.results.scores import in_categories
from routing_moe.results.statistics import AUTO, FEWEST_TASKS, SEEDS_ALONE, TASKS_ALONE, holm, mean_interval

OVER_GYMS = "gyms"  # what an interval over seeds covers if each seed has a gym with tasks of its own
MARKS = {SEEDS_ALONE: " (these tasks)", TASKS_ALONE: " (tasks alone)", OVER_GYMS: " (gyms)"}
SHOWN_DIFFERENCE = ["difference", "low", "high", "interval"]
LINE_WIDTH = 100  # characters of an explanation
EXPLAINED = (
    "in brackets the 95% t interval: two-way over seeds and tasks, or over seeds with the tasks as fixed "
    "(marked: these tasks), or over tasks with the runs as fixed (marked: tasks alone); none below "
    f"{FEWEST_TASKS} tasks, and too narrow if few tasks or seeds account for the effect. Detectable: the "
    "smallest true difference that this test finds at the 5% level with a probability of 80%."
)
OF_GYMS = " Each seed has a gym of its own: intervals over seeds (marked: gyms) cover other gyms."
BASELINES_EXPLAINED = {
    "constant": "each task's most frequent training answer.",
    "chance": "expected accuracy of a uniform choice among the options of a task.",
    "copy": "the input as the answer.",
}


# ---- means


def means_per_run(scores: pd.DataFrame, ontology: Ontology, measure: str = PERFORMANCE) -> pd.DataFrame:
    """Returns variant, run, seed, category, tasks (their number) and mean: those of each run by category."""
    variants = pd.Categorical(scores["variant"], categories=scores["variant"].unique())
    rows = in_categories(scores.assign(variant=variants).dropna(subset=measure), ontology)
    grouped = rows.groupby(["variant", "run", "seed", "category"], sort=False, observed=True)
    table = grouped[measure].agg(tasks="size", mean="mean").reset_index()
    table = table.sort_values(["variant", "seed", "category"], ignore_index=True)
    return table.astype({"variant": str})


def comparison_table(
    scores: pd.DataFrame, ontology: Ontology, baseline: str | None = None, measure=PERFORMANCE, contrasts=None
) -> pd.DataFrame:
    """Returns means over runs per variant and category, then those of answers without a model, without n.

    Columns variant, category, tasks, mean, std, n; with a baseline also those of `contrast_table`.
    """
    per_run = means_per_run(scores, ontology, measure).groupby(["variant", "category"], sort=False)
    means = dict(tasks=("tasks", "first"), mean=("mean", "mean"), std=("mean", "std"), n=("mean", "size"))
    tables = [per_run.agg(**means).reset_index()]
    tasks = scores.dropna(subset=measure).drop_duplicates(["seed", "task"])  # each seed may have its own gym
    for column in MEASURES[measure].baselines:
        if column in tasks and (column == "constant" or tasks[column].notna().any()):
            values = tasks.astype({column: float}).groupby("task", sort=False)[column].mean().reset_index()
            means = in_categories(values, ontology).groupby("category", observed=True)[column]
            tables.append(
                means.agg(tasks="count", mean="mean").reset_index().assign(variant=BASELINES[column])
            )
    table = pd.concat(tables, ignore_index=True).astype({"category": str})
    if baseline is not None and contrasts is not None:  # None: the baseline is the only variant
        differences = contrasts[(contrasts["minus"] == baseline) & (contrasts["measure"] == measure)]
        differences = differences.drop(columns=["measure", "minus", "tasks"])
        table = table.merge(differences, how="left", on=["variant", "category"])
    return table.astype({name: "Int64" for name in ("n", "pairs") if name in table})


# ---- differences


def parsed_contrast(text: str) -> tuple[str, str]:
    """Returns ("a", "b") for "a:b". Raises InputError."""
    names = text.split(":")
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise InputError(f"--contrasts {text}: expected A:B, two different variants, for A minus B")
    return names[0], names[1]


def contrast_pairs(settings: CompareSettings, variants: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the contrasts with the baseline, then those of --contrasts."""
    with_baseline = [(name, settings.baseline) for name in variants if settings.baseline not in (None, name)]
    own = list(map(parsed_contrast, settings.contrasts))
    pairs = dict.fromkeys([*with_baseline, *own])
    for first, second in own:
        if (second, first) in pairs:  # would count twice in the correction of p
            raise InputError(f"--contrasts {first}:{second}: {second}:{first} is the same test; give one")
    return list(pairs)


def paired_by_seed(scores: pd.DataFrame, contrast: tuple[str, str], measure: str) -> pd.DataFrame:
    """Returns the differences of a contrast: a row per task with the measure, a column per common seed."""
    rows = scores.dropna(subset=measure)
    first, second = (
        rows[rows["variant"] == variant].pivot(index="task", columns="seed", values=measure)
        for variant in contrast
    )
    common = [seed for seed in first if seed in second]
    # Finished runs have the same tasks; with a gym for each seed, tasks may lack a measure in some of them.
    return (first[common] - second[common].reindex(first.index)).dropna()


def contrast_table(
    scores: pd.DataFrame, ontology: Ontology, contrasts: Sequence[tuple[str, str]], measures: Sequence[str],
    primary: Collection[str] = (), design: str = AUTO,
) -> pd.DataFrame:  # fmt: skip
    """Returns the mean differences over tasks and common seeds: a row per measure, contrast and category.

    low, high, p, detectable and interval are of `statistics.mean_interval`. p_holm is corrected over all
    contrasts and primary measures (by default the first) of the category; NaN for others.
    """
    rows = []
    for measure in measures:
        for variant, minus in contrasts:
            by_seed = paired_by_seed(scores, (variant, minus), measure)
            by_category = in_categories(by_seed.index.to_frame(index=False), ontology)
            for category, group in by_category.groupby("category", sort=False, observed=True):
                values_TS = by_seed.loc[group["task"]]
                x = mean_interval(values_TS.to_numpy().T, design)
                mean, (tasks, seeds) = values_TS.mean(axis=1).mean(), values_TS.shape
                row = (measure, variant, minus, category, tasks, mean, x.low, x.high, seeds, x.p)
                rows.append((*row, np.nan, x.detectable, x.over))
    columns = "measure variant minus category tasks difference low high pairs p p_holm detectable interval"
    table = pd.DataFrame(rows, columns=columns.split())
    family = table["p"].where(table["measure"].isin(primary or measures[:1]))
    return table.assign(p_holm=family.groupby(table["category"]).transform(holm))


# ---- all tables of a comparison


@dataclass(frozen=True)
class Compared:
    """Means of variants and of runs, with a column measure; contrasts, if any; `scores_per_sample`."""

    table: pd.DataFrame
    per_run: pd.DataFrame
    contrasts: pd.DataFrame | None
    samples: pd.DataFrame

    def means(self, measure: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Returns the means of runs and of variants in a measure."""
        per_run, table = (t[t["measure"] == measure] for t in (self.per_run, self.table))
        return per_run.drop(columns="measure"), table.drop(columns="measure")

    def csv_tables(self, settings: CompareSettings) -> dict[str, pd.DataFrame | None]:
        """Returns {ending of the file's name: table}. The performance alone has no column measure."""
        alone = settings.measures == (PERFORMANCE,)
        per_run, table = self.means(PERFORMANCE) if alone else (self.per_run, self.table)
        contrasts = self.contrasts if settings.contrasts else None
        return {"": table, "_runs": per_run, "_contrasts": contrasts, "_tasks": self.samples}

    def markdown(self, settings: CompareSettings, draws: dict[str, int]) -> Iterator[str]:
        """Yields explanations and tables. draws: {variant: draws of routes that its scores are means of}."""
        measures = settings.measures
        what = f"{MEASURES[measures[0]].heading if len(measures) == 1 else 'means'} {settings.where_scored}"
        lines = [
            f"{what.capitalize()}, checkpoint {settings.checkpoint_name}: mean ± sample std over n runs with",
            "different seeds. All tasks have equal weight; the number of tasks is in brackets.",
        ]
        shown = set(self.table["variant"])
        names = [name for name in BASELINES_EXPLAINED if BASELINES[name] in shown]
        lines += [f"{BASELINES[name].capitalize()}: {BASELINES_EXPLAINED[name]}" for name in names]
        lines += [f"Scores of {name} are means over {n} draws of its routes." for name, n in draws.items()]
        if pairs := contrast_pairs(settings, self.samples["variant"].unique()):
            text = (
                f"Differences are between runs with the same seed, mean over seeds and tasks; {EXPLAINED} p: "
                f"the corresponding t test; p (Holm): corrected over all contrasts ({len(pairs)}) in "
                f"{', '.join(settings.primary or measures[:1])}; categories have families of their own."
                f"{OF_GYMS if settings.gym_per_seed else ''}"
            )
            lines.append(textwrap.fill(text, LINE_WIDTH))
        yield "\n".join(lines)
        for measure in measures:
            heading = f"**{MEASURES[measure].heading.capitalize()}**\n\n" if len(measures) > 1 else ""
            yield heading + comparison_markdown(self.means(measure)[1], settings.baseline)
        if self.contrasts is not None:
            further = self.contrasts[self.contrasts["minus"] != settings.baseline]
            if len(further):
                yield contrasts_markdown(further)


def compared(settings: CompareSettings, runs: Sequence[Run], ontology: Ontology) -> Compared:
    """Returns the tables of finished runs."""
    scores, tables, means, contrasts = scores_per_task(runs), [], [], None
    if pairs := contrast_pairs(settings, scores["variant"].unique()):
        # Tasks of the same name differ between gyms, so they are part of the variation between seeds.
        design = "seeds" if settings.gym_per_seed else settings.design
        contrasts = contrast_table(scores, ontology, pairs, settings.measures, settings.primary, design)
        if settings.gym_per_seed:
            contrasts = contrasts.replace({"interval": {SEEDS_ALONE: OVER_GYMS}})
    for measure in settings.measures:
        table = comparison_table(scores, ontology, settings.baseline, measure, contrasts)
        tables.append(table.assign(measure=measure))
        means.append(means_per_run(scores, ontology, measure).assign(measure=measure))
    parts = [pd.concat(tables, ignore_index=True), pd.concat(means, ignore_index=True), contrasts]
    if settings.gym_per_seed:  # a task of the same name has another category in each gym
        parts = [rows if rows is None else rows[rows["category"] == ALL] for rows in parts]
    return Compared(*parts, scores_per_sample(runs))


# ---- Markdown


def comparison_markdown(table: pd.DataFrame, baseline: str | None = None) -> str:
    """Returns a row per variant, a column per category; a mean over fewer tasks shows their number."""
    rows, sizes = {}, table.groupby("category", sort=False)["tasks"].max()
    for variant, group in table.groupby("variant", sort=False):
        n = group["n"].iloc[0]
        row = rows[variant] = {"n": "" if pd.isna(n) else str(n)}
        for x in group.itertuples():
            fewer = f" ({x.tasks})" if 0 < x.tasks < sizes[x.category] else ""
            row[f"{x.category} ({sizes[x.category]})"] = mean_and_std(x.mean, x.std) + fewer
        if "difference" in table:
            over_all = group[group["category"] == ALL].iloc[0]
            row[f"all, minus {baseline}"] = shown_difference(*over_all[SHOWN_DIFFERENCE])
            if "detectable" in table:
                row["detectable"] = shown_number(over_all["detectable"])
            row |= {"p": shown_p(over_all["p"]), "p (Holm)": shown_p(over_all["p_holm"])}
    return markdown_table(rows, "variant")


def contrasts_markdown(table: pd.DataFrame) -> str:
    """Returns `contrast_table` as Markdown: a row per contrast and measure, over all tasks."""
    rows = table[table["category"] == ALL]
    shown = {
        "contrast": rows["variant"] + " minus " + rows["minus"],
        "measure": rows["measure"],
        "tasks": f"{ALL} (" + rows["tasks"].astype(str) + ")",
        "difference": [shown_difference(*row) for row in rows[SHOWN_DIFFERENCE].to_numpy()],
        "seeds": rows["pairs"].astype(str),
        "detectable": rows["detectable"].map(shown_number),
        "p": rows["p"].map(shown_p),
        "p (Holm)": rows["p_holm"].map(shown_p),
    }
    return markdown_table(pd.DataFrame(shown).set_index("contrast"))


def shown_number(number: float) -> str:
    """Returns three decimals, "" for NaN."""
    return "" if np.isnan(number) else f"{number:.3f}"


def shown_difference(difference: float, low: float, high: float, interval: str) -> str:
    """Returns "+0.027 [+0.002, +0.057]", marked unless it is two-way, or the reason for no interval."""
    if np.isnan(difference):
        return interval if isinstance(interval, str) else ""
    if np.isnan(low):
        return f"{difference:+.3f}, {interval}"
    return f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]{MARKS.get(interval, '')}"
