"""The tables of a comparison by category: means of each measure, contrasts, learnable tasks.

found = compared(settings, runs, ontology)
found.csv_tables(settings)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from dataloader.errors import InputError, did_you_mean
from dataloader.ontology import Ontology
from routing_moe.config.tables import CompareSettings
from routing_moe.results import comparison
from routing_moe.results.compared_runs import Run, find_runs, scores_per_sample, scores_per_task
from routing_moe.results.contrasts import (
    OVER_GYMS,
    contrast_table,
    contrasts_markdown,
    explain_contrasts,
    parsed_contrast,
)
from routing_moe.results.learnable import (
    LEARNABLE,
    baseline_problems,
    explain_learnable,
    learnable_tasks,
    parsed_rule,
)
from routing_moe.results.measures import TITLES
from routing_moe.results.scores import ALL, ScoresFile
from routing_moe.results.statistics import SEEDS_ALONE


@dataclass(frozen=True)
class Compared:
    """Tables with a column measure: means of runs, of variants; contrasts (None without any).

    samples: `scores_per_sample`. learnable: `learnable_tasks`, its explanation in explained; None without.
    """

    per_run: pd.DataFrame
    table: pd.DataFrame
    contrasts: pd.DataFrame | None
    samples: pd.DataFrame
    learnable: pd.DataFrame | None = None
    explained: str = ""

    def of(self, measure: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Returns the means of runs and of variants in a measure."""
        both = (self.per_run, self.table)
        return tuple(rows[rows["measure"] == measure].drop(columns="measure") for rows in both)

    def csv_tables(self, settings: CompareSettings) -> dict[str, pd.DataFrame | None]:
        """Returns {ending of the file's name: table}. The performance alone has no column measure."""
        table, per_run = self.table, self.per_run
        if settings.measures == (comparison.PERFORMANCE,):
            per_run, table = self.of(comparison.PERFORMANCE)
        contrasts = self.contrasts if settings.contrasts else None
        by_end = {"": table, "_runs": per_run, "_contrasts": contrasts, "_learnable": self.learnable}
        return by_end | {"_tasks": self.samples}

    def markdown(self, settings: CompareSettings, draws: dict[str, int], checkpoint: str) -> Iterator[str]:
        """Yields the explanations and tables of all measures."""
        measures, where = settings.measures, where_scored(settings)
        what = f"{TITLES[measures[0]]} {where}" if len(measures) == 1 else f"means {where}"
        explained = [comparison.explain_comparison(what, checkpoint, set(self.table["variant"]), draws)]
        if pairs := contrast_pairs(settings, self.samples["variant"].unique()):
            explained.append(
                explain_contrasts(pairs, settings.primary or measures[:1], settings.gym_per_seed)
            )
        yield "\n".join(explained)
        for measure in measures:
            heading = f"**{TITLES[measure].capitalize()}**\n\n" if len(measures) > 1 else ""
            yield heading + comparison.comparison_markdown(self.of(measure)[1], settings.baseline)
        if self.contrasts is not None:
            further = self.contrasts["minus"] != settings.baseline
            shown = self.contrasts[further | (self.contrasts["category"] == LEARNABLE)]
            if len(shown):
                yield contrasts_markdown(shown)
        if self.explained:
            yield self.explained


def where_scored(settings: CompareSettings) -> str:
    return f"on the {settings.scored_part} files of the {settings.predict_split} tasks"


def compared(settings: CompareSettings, runs: Sequence[Run], ontology: Ontology) -> Compared:
    """Returns the tables of finished runs. Raises InputError if --learnable names no runs with dev scores."""
    scores, tables, means, contrasts = scores_per_task(runs), [], [], None
    learnable, explained = learnable_of(settings) if settings.learnable else (None, "")
    chosen = None if learnable is None else set(learnable.loc[learnable["learnable"], "task"])
    pairs = contrast_pairs(settings, scores["variant"].unique())
    if pairs:
        # Tasks of the same name differ between gyms, so they are part of the variation between seeds.
        design = "seeds" if settings.gym_per_seed else settings.design
        contrasts = contrast_table(
            scores, ontology, pairs, settings.measures, settings.primary, design, chosen
        )
        if settings.gym_per_seed:
            contrasts = contrasts.replace({"interval": {SEEDS_ALONE: OVER_GYMS}})
    for measure in settings.measures:
        per_run = comparison.means_per_run(scores, ontology, measure, chosen)
        table = comparison.comparison_table(scores, ontology, settings.baseline, measure, contrasts, chosen)
        means.append(per_run.assign(measure=measure))
        tables.append(table.assign(measure=measure))
    found = [pd.concat(tables, ignore_index=True), pd.concat(means, ignore_index=True), contrasts]
    if settings.gym_per_seed:  # a task of the same name has another category in each gym
        found = [rows if rows is None else rows[rows["category"] == ALL] for rows in found]
    table, per_run, contrasts = found
    return Compared(per_run, table, contrasts, scores_per_sample(runs), learnable, explained)


def contrast_pairs(settings: CompareSettings, variants: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the contrasts with the baseline, then those of --contrasts."""
    of_baseline = [(name, settings.baseline) for name in variants if name != settings.baseline]
    further = [parsed_contrast(text) for text in settings.contrasts]
    return list(dict.fromkeys([*(of_baseline if settings.baseline else []), *further]))


def learnable_of(settings: CompareSettings) -> tuple[pd.DataFrame, str]:
    """Returns `learnable_tasks` by the dev scores of the variant of --learnable, and an explanation."""
    name, margin = parsed_rule(settings.learnable)
    file = ScoresFile("dev", settings.predict_split, settings.checkpoint_name, settings.prefix)
    runs = find_runs(settings.folders, file)
    known = sorted({run.variant for run in runs})
    if name not in known:
        raise InputError(f"--learnable {name}: no such variant{did_you_mean(name, known)}")
    chosen = [run for run in runs if run.variant == name and run.scores is not None]
    if not chosen:
        raise InputError(f"--learnable {name}: no run has {file.path}; it is written with --do_predict")
    if problems := [line for run in chosen for line in baseline_problems(run.scores, run)]:
        raise InputError(problems)
    scores = scores_per_task(chosen).groupby("task")["performance"].mean()
    table = learnable_tasks(scores, pd.concat([run.scores for run in chosen]), margin)
    return table, explain_learnable(table, f"{name} (n = {len(chosen)} runs)", margin)
